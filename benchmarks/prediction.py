"""Does an offload run measure what it predicts? Every point of two networks, on loopback and on a slow line.

    python benchmarks/prediction.py            # as root for the line; about four minutes on a quiet machine
    python benchmarks/prediction.py cnn        # one of the networks

For each point the edge asks the server for the server's time, runs the head, probes the link (see
splitsem/workflows/prediction.py), and only then sends and times frames. Each end has a processor core of its own. Bars:
the median of |predicted - measured| / measured over all points of a network on a link is at most 10 % of the latency
and 15 % of the throughput.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.ends import BRIEFLY, configured, device_says, running_server, state_of_the_machine, stop_cleanly
from harness.line import Line, NoNamespacesError, rate_limited_line
from harness.measured_rows import record

BAR, PACE_BAR = 0.10, 0.15
EDGE_CORE, SERVER_CORE = 0, 1
LINE_BPS, BURST_BYTES, QUEUE_BYTES = 50e6, 16_000, 1_000_000
NETWORKS = {
    "cnn": ["task=digits"],
    "resnet18": ["task=digits", "model=torchvision", "model.name=resnet18", "model.image_size=64"],
}
QUICKLY = ["codec=quant8", "workflow.num_samples=20", "workflow.num_timed=25", "workflow.num_probes=30"]
QUICKLY += ["hardware.edge.budget_s=0.02", "hardware.server.budget_s=0.02"]  # hot loops, which this benchmark ignores
COLUMNS = ("edge_s", "link_s", "server_s", "latency_s")
TRANSPORTS = ("edge_transport_s", "server_transport_s")


def device(address: str, overrides: list[str], has_line: bool) -> list[dict[str, Any]]:
    """The metrics of an offload run at every point, one after the other in this process."""
    from splitsem.workflows import assemble, offload

    cfg = configured(address, overrides, has_line)
    found = []
    for point in assemble.network(cfg).graph.points:
        cfg.split.point = point.name
        metrics = offload.run(cfg, Path()).metrics
        names = [*COLUMNS, "throughput_hz", *TRANSPORTS, "prediction_error", "throughput_prediction_error"]
        names += [f"measured_{name}" for name in (*COLUMNS, "throughput_hz")]
        found.append({name: metrics[name] for name in ("split_point", "payload_bytes", "server_timing", *names)})
    return found


def show(link: str, network: str, found: list[dict[str, Any]]) -> None:
    """Print a row for each point: predicted | measured milliseconds."""
    print(f"\n{network}, {link}: ms predicted | measured")
    heads = "".join(f"{name.removesuffix('_s'):>17}" for name in COLUMNS)
    print(f"{'point':22}{'bytes':>8}{heads}   error{'transport, ends':>16}{'samples/s':>18}   error")
    for row in found:
        cells = "".join(f"{1e3 * row[name]:8.2f} |{1e3 * row[f'measured_{name}']:7.2f}" for name in COLUMNS)
        ends = " ".join(f"{1e3 * row[name]:7.2f}" for name in TRANSPORTS)
        pace = f"{row['throughput_hz']:8.0f} |{row['measured_throughput_hz']:8.0f}"
        cells += f"  {row['prediction_error']:6.1%} {ends}{pace}  {row['throughput_prediction_error']:6.1%}"
        print(f"{row['split_point']:22}{row['payload_bytes']:8.0f}{cells}", flush=True)


def main(networks: list[str]) -> None:
    """Print all points, then the bars."""
    print(state_of_the_machine())
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        overrides = {name: [*choice, *BRIEFLY, f"cache_dir={scratch}/cache"] for name, choice in NETWORKS.items()}

        def run(link: str, line: Line | None) -> None:
            for name in networks:
                with running_server(Path(scratch, link, name), overrides[name], line, SERVER_CORE) as address:
                    settings = [*overrides[name], *QUICKLY]
                    arguments = {"address": address, "overrides": settings, "has_line": line is not None}
                    results[name, link] = device_says(__file__, arguments, line, EDGE_CORE)
                show(link, name, results[name, link])

        run("loopback", None)
        try:
            with rate_limited_line("splitsem-prediction", LINE_BPS, BURST_BYTES, QUEUE_BYTES) as line:
                run(f"{LINE_BPS / 1e6:.0f} Mbit/s", line)
        except NoNamespacesError as exc:
            print(f"No rate-limited line: {exc}")
    print(
        f"\n{state_of_the_machine()}\n{'network':12}{'link':14}{'points':>7}{'median':>9}{'worst':>8}{'throughput':>12}"
    )
    for (network, link), found in results.items():
        errors = [row["prediction_error"] for row in found]
        throughput = statistics.median(row["throughput_prediction_error"] for row in found)
        oks = ["PASS" if ok else "MISSED" for ok in (statistics.median(errors) <= BAR, throughput <= PACE_BAR)]
        figures = f"{len(found):7}{statistics.median(errors):9.1%}{max(errors):8.1%}{throughput:12.1%}"
        print(f"{network:12}{link:14}{figures}   {', '.join(oks)} (bars: medians ≤ {BAR:.0%} and {PACE_BAR:.0%})")
        over = f"predicted against measured: {network}, {link}"  # scripts/measured_page.py sums these up
        median = statistics.median(errors)
        record(f"latency, {over}", f"{median:.1%}", f"≤ {BAR:.0%}", median > BAR)
        record(f"throughput, {over}", f"{throughput:.1%}", f"≤ {PACE_BAR:.0%}", throughput > PACE_BAR)


if __name__ == "__main__":
    stop_cleanly()
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        print(json.dumps(device(**json.loads(sys.argv[1]))))
    elif unknown := set(sys.argv[1:]) - NETWORKS.keys():
        sys.exit(f"no such network: {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    else:
        main(sys.argv[1:] or list(NETWORKS))
