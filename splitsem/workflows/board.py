"""Workflow board: sends a bundle and splitsem-device to a board over ssh, checks the bundle there, and runs it."""

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.export import device_wheel
from splitsem.json_files import write_text
from splitsem.remote.grpc.transport import Grpc
from splitsem.remote.serving import signalled
from splitsem.remote.ssh_board import SshBoard
from splitsem.remote.ssh_inventory import Host, find
from splitsem.workflows import settings
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import remote_transport
from splitsem.workflows.serve_attached import with_settings
from splitsem_device.bundle import Bundle
from splitsem_device.grpc.connection import host_port, is_loopback
from splitsem_device.retry import Backoff

log = logging.getLogger(__name__)
_NAME = "splitsem-device: "  # what its errors begin with
_SECRETS = {"ca": "--ca", "cert": "--cert", "key": "--key", "token_file": "--token-file"}


def run(cfg: DictConfig, folder: Path) -> Result:
    """Run the bundle on the board; leaves ``times.json``, what splitsem-device reports, in the run's folder."""
    began = time.perf_counter()
    host = find(cfg.transport.inventory, cfg.workflow.host, "workflow=board needs workflow.host")
    if host.settings:
        cfg = with_settings(cfg, host.settings)
        settings.check(cfg)
    transport = checked_transport(cfg, host)
    bundle = checked_bundle(cfg)
    wheels = _wheels(cfg)
    log.info("Starting the board %s (%s)", host.name, host.address)
    with SshBoard(host) as board:
        given = cfg.workflow.wheel
        wheel = Path(given) if given else device_wheel.built(board.machine, Path(cfg.cache_dir))
        where = board.send([bundle, wheel, *(one for one in wheels if one.name != wheel.name)], _secrets(transport))
        is_new = board.install(1, is_offline=cfg.workflow.wheels is not None)
        start_s = time.perf_counter() - began
        made = "made" if is_new else "was there"
        log.info(
            "%s is ready after %.1f s (%d bytes sent, its environment %s)",
            host.name,
            start_s,
            board.num_sent_bytes,
            made,
        )
        _check(cfg, board, f"{where}/{bundle.name}")
        if cfg.workflow.profile:
            table = _ran(board, profile_arguments(cfg, where, bundle.name))
            write_text(json.dumps(table, indent=1) + "\n", folder / "lut.json")
            log.info("hardware.edge.lut=%s", folder / "lut.json")
        target = board.tunnel(transport.target) if host.connect == "tunnel" else transport.target
        with signalled() as stopped:  # Ctrl-C is for the board's program, whose result still comes
            report = _ran(board, run_arguments(cfg, transport, target, where, bundle.name), stopped)
    write_text(json.dumps(report, indent=1) + "\n", folder / "times.json")
    metrics: Metrics = {"host": host.name, "start_s": start_s, "sent_bytes": board.num_sent_bytes} | summary(report)
    return Result(metrics, {}, [], headline(metrics))


def checked_transport(cfg: DictConfig, host: Host) -> Grpc:
    """The link of the board. Raises ConfigError for what splitsem-device there could not do."""
    transport = remote_transport(cfg)
    if not isinstance(transport, Grpc) or not isinstance(transport.retry, Backoff):
        raise ConfigError("splitsem-device has transport=grpc with transport.retry of Backoff, and no other link")
    if transport.start.how is not None or transport.start.host is not None:
        raise ConfigError("transport.start starts servers (workflow=offload); the board is workflow.host")
    transport.check_edge()
    if host.connect == "direct" and is_loopback(host_port(transport.target)[0]) and not is_loopback(host.address):
        raise ConfigError(
            f"connect: direct of host {host.name} needs a transport.target that the board reaches, got "
            f"{transport.target}; connect: tunnel takes the board to any address that this machine reaches"
        )
    if cfg.workflow.source == "-":
        raise ConfigError("workflow.source=- would be the standard input of the board's program, which has none")
    return transport


def checked_bundle(cfg: DictConfig) -> Path:
    """The bundle's file. Raises ConfigError where it is none, or lacks the head."""
    if cfg.workflow.bundle is None:
        raise ConfigError("workflow=board needs workflow.bundle, the .zip that workflow=bundle wrote")
    bundle = Bundle(cfg.workflow.bundle)
    if bundle.path.is_dir():
        raise ConfigError(f"{bundle.path} is a folder; a board gets one file: make it with workflow.archive=zip")
    bundle.head(cfg.workflow.head)
    return bundle.path


def run_arguments(cfg: DictConfig, transport: Grpc, target: str, where: str, bundle: str) -> list[str]:
    """The command line of splitsem-device; ``where`` is the run's folder there. Secrets are files of that folder."""
    flow, retry = cfg.workflow, transport.retry
    assert isinstance(retry, Backoff)
    words: dict[str, Any] = {
        "--target": target,
        "--source": flow.source,
        "--frames": flow.frames,
        "--window": transport.window,
        "--patience": retry.patience_s,
        "--retries": retry.retries,
        "--deadline": retry.deadline_s,
        "--on-loss": flow.on_loss,
        "--buffer": flow.buffer,
        "--head": flow.head,
        "--threads": flow.threads,
        "--json": f"{where}/report.json",
    }
    words |= {_SECRETS[name]: f"{where}/{name}" for name in _secrets(transport)}
    flags = ["--insecure"] * transport.security.insecure + ["--quiet"] * flow.quiet
    return ["run", f"{where}/{bundle}", *(f"{k}={v}" for k, v in words.items() if v is not None), *flags]


def profile_arguments(cfg: DictConfig, where: str, bundle: str) -> list[str]:
    """The command line that times the head; the table is the report."""
    options = (f"--head={cfg.workflow.head}", f"--threads={cfg.workflow.threads}", f"--output={where}/report.json")
    return ["profile", f"{where}/{bundle}", *options]


def summary(report: dict[str, Any]) -> Metrics:
    """The numbers of a report of splitsem-device, flat."""
    metrics: Metrics = {name: report[name] for name in ("payload_bytes", "first_payload_s", "rss_bytes")}
    metrics |= {
        name: report["counters"][name] for name in ("frames_answered", "retries", "reconnects", "fallback_frames")
    }
    for stage, percents in report["stages"].items():
        metrics |= {f"{stage.removesuffix('_s')}_{percent}_s": value for percent, value in percents.items()}
    return metrics


def headline(metrics: Metrics) -> str:
    """One line about a run on a board."""
    if "round_trip_p50_s" not in metrics:
        return f"{metrics['host']}: no frame was answered"
    head_s, trip_s, late_s = (metrics[name] for name in ("head_p50_s", "round_trip_p50_s", "round_trip_p95_s"))
    return (
        f"{metrics['host']}: {metrics['frames_answered']} frames answered, {metrics['payload_bytes']:.0f} bytes each; "
        f"measured medians: head {1e3 * head_s:.3g} ms, round trip {1e3 * trip_s:.3g} ms (95th percentile "
        f"{1e3 * late_s:.3g} ms); "
        f"memory {metrics['rss_bytes'] / 1e6:.0f} MB; ready after {metrics['start_s']:.1f} s"
    )


def _secrets(transport: Grpc) -> dict[str, Path]:
    """What the board needs of the link's security, by its name there."""
    given = {name: getattr(transport.security, name) for name in _SECRETS}
    return {name: Path(path) for name, path in given.items() if path is not None}


def _wheels(cfg: DictConfig) -> list[Path]:
    for name in ("wheel", "wheels"):
        path = cfg.workflow[name]
        if path is not None and not (Path(path).is_dir() if name == "wheels" else Path(path).name.endswith(".whl")):
            raise ConfigError(
                f"workflow.{name} must be a {'folder of wheels' if name == 'wheels' else 'wheel'}, got {path}"
            )
    return sorted(Path(cfg.workflow.wheels).glob("*.whl")) if cfg.workflow.wheels else []


def _check(cfg: DictConfig, board: SshBoard, bundle: str) -> None:
    lines: list[str] = []
    words = ["check", bundle, f"--head={cfg.workflow.head}", f"--threads={cfg.workflow.threads}"]
    status, _ = board.run([*words, *["--exact"] * cfg.workflow.exact], lines.append)
    for line in lines:
        log.info("%s", line)
    if status:
        bad = [line for line in lines if line.startswith(("BAD ", _NAME))] or lines[-1:]
        raise ConfigError(f"host {board.host.name}: the bundle does not hold there: {'; '.join(bad)}")


def _ran(board: SshBoard, arguments: list[str], stopped: threading.Event | None = None) -> dict[str, Any]:
    """Run splitsem-device there and show what it says; returns its report. Raises ConfigError with its last words."""
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        del lines[:-20]  # a run may go on for days
        if "/report.json" not in line:  # a file that is fetched from there, and goes
            log.info("%s", line)

    status, report = board.run(arguments, show, stopped)
    if status or report is None:
        last = next((line for line in reversed(lines) if line.startswith(_NAME)), f"it ended with {status}")
        raise ConfigError(f"host {board.host.name}: {last.removeprefix(_NAME)}")
    return report
