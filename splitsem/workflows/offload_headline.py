"""What an offload run says at its end: predicted beside measured, what bounds the pace, which machines are shared."""

from collections.abc import Callable

from omegaconf import DictConfig

from splitsem.workflows.result import Metrics
from splitsem_device.answers import Counters

_LEAST_SHARE = 0.8  # of the latency, that its stages' medians add up to on a quiet machine
_CHAIN_STAGES = ("machine", ""), ("hop", "_busy")


def side_by_side(metrics: Metrics) -> str:
    """Predicted and measured in a row each; the link's row holds the answer's way back."""
    rows = [f"{'':14}{'predicted':>12}{'measured':>12}"]
    form: Callable[[float], str]
    for name in ("head_s", "encode_s", "edge_s", "link_s", "server_s", "latency_s", "throughput_hz"):
        if f"measured_{name}" not in metrics:
            continue
        form = (lambda v: f"{v:.1f} /s") if name.endswith("_hz") else (lambda v: f"{1e3 * v:.3f} ms")
        predicted = metrics[name] + (metrics["answer_s"] if name == "link_s" else 0.0)
        low, high = (f"measured_{name.removesuffix('_s')}_{end}_s" for end in ("low", "high"))
        interval = f"  ({1e3 * metrics[low]:.3f} to {1e3 * metrics[high]:.3f})" if low in metrics else ""
        rows.append(f"{name:14}{form(predicted):>12}{form(metrics[f'measured_{name}']):>12}{interval}")
    names = ["edge_s", "link_busy_s", "server_s", "answer_busy_s"]
    if "machine_1_s" in metrics:  # of a chain, whose servers are stages of their own
        chain_names = (f"{kind}_{n}{of}_s" for n in range(1, len(metrics)) for kind, of in _CHAIN_STAGES)
        names[2:3] = [name for name in chain_names if name in metrics]
    parts = {name: metrics[name] for name in names}
    for end in ("edge", "server"):
        transport_s = metrics[f"{end}_transport_s"]
        rows.append(f"{end}: the transport's software takes another {1e3 * transport_s:.3f} ms a frame")
        if f"{end}_s" in parts:
            parts[f"{end}_s"] += transport_s
    rows.append(f"predicted throughput bound by {max(parts, key=parts.__getitem__)}")
    rows += _not_added_up(metrics)
    rows.append(
        f"prediction error: latency {metrics['prediction_error']:.1%}, "
        f"throughput {metrics['throughput_prediction_error']:.1%}"
    )
    return "\n".join(rows)


def _not_added_up(metrics: Metrics) -> list[str]:
    """A line where the medians of the stages are far from the median of their sum."""
    added_s = sum(float(metrics[f"measured_{name}_s"]) for name in ("edge", "link", "server"))
    if added_s > _LEAST_SHARE * metrics["measured_latency_s"]:
        return []
    why = "something else took the processors from most frames, from each in another stage"
    return [f"the stages' medians add up to {1e3 * added_s:.3f} ms: {why}"]


def cuts(cfg: DictConfig, metrics: Metrics) -> str:
    """The cut, with those of further machines in a chain."""
    first = str(metrics["split_point"])
    if not cfg.workflow.onward:
        return first
    hops = [f"{first} {metrics['codec']}", *(f"{point} {codec or 'unread'}" for point, codec in cfg.workflow.onward)]
    return f"chain of {len(hops) + 1} machines, cut at {', '.join(hops)}"


def losses(counters: Counters) -> str:
    """What a transport that tolerates loss tolerated; empty where nothing was lost."""
    if not counters.missing_share:
        return ""
    return (
        f", {counters.frames_lost} lost, {counters.frames_late} late, {counters.frames_filled} with gaps filled "
        f"({counters.missing_share:.2%} of the bytes missing)"
    )


def chain_stages(metrics: Metrics) -> str:
    """The predicted seconds of each machine of a chain, in a line."""
    if "machine_1_s" not in metrics:
        return (
            "The first server does not tell its chain's stages, so the prediction takes all machines behind the first "
            "hop for one."
        )
    seconds = [metrics[name] for name in sorted(metrics) if name.startswith("machine_") and name.endswith("_s")]
    each = ", ".join(f"{1e3 * took_s:.3f}" for took_s in seconds)
    hops = range(1, len(seconds) - 1)
    hops_s = sum(metrics[f"hop_{h}_s"] for h in hops)
    busy = [metrics[name] for h in hops if (name := f"hop_{h}_busy_s") in metrics]
    told = f"and are busy for {', '.join(f'{1e3 * busy_s:.3f}' for busy_s in busy)} ms with a frame"
    if len(busy) < len(hops):
        told = "and what they are busy with bounds the pace no less, but a server is too old to tell it"
    return (
        f"server_s is the work of all machines behind the first hop. Predicted of each machine: {each} ms, the slowest "
        f"of which bounds the pace; hops between servers add {1e3 * hops_s:.3f} ms to link_s, {told}."
    )


def shared_machines(metrics: Metrics, num_ends: int, is_here: bool) -> list[str]:
    """A line where processes share cores, so that the prediction of the pace is not what it presumes.

    Args:
        metrics: with ``num_hosts`` where every server says which computer it runs on.
        num_ends: the edge and all servers.
        is_here: whether the first server's address is of this machine.
    """
    num_hosts = metrics.get("num_hosts", num_ends - is_here)
    if num_hosts == num_ends:
        return []
    most = "" if "num_hosts" in metrics else "at most "
    here = "both share one" if num_ends == 2 else f"{num_ends} processes share {most}{num_hosts}"
    return [f"The predicted throughput presumes a machine for each end; here {here}."]
