"""What the machine files say of whole networks against what others published of them.

    python benchmarks/published_networks.py        # no measurement: graphs and arithmetic, half a minute

Each public time is of one picture at 224 × 224 in FP32; sources stand in the machine's file. Times of another runtime
than eager PyTorch are compared all the same and named. No bar: the files and docs/decisions/machine-models.md state
the ratios.
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision import models

from harness.measured_rows import record
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.half import Half

MACHINES = Path(__file__).parent.parent / "conf" / "hardware" / "machine"
TX2_MAX_N = {"peak_flops_per_s": 665.6e9, "memory_bytes_per_s": 44.8e9}  # the file has the clocks of Max-P


@dataclass(frozen=True)
class Published:
    """One public time: of which network on which machine (with which clocks), in which runtime, in milliseconds."""

    machine: str
    network: str
    runtime: str
    time_ms: float
    clocks: tuple[tuple[str, float], ...] = ()


ON_TX2 = {"resnet50": 63.9, "resnet101": 107.0, "resnet152": 157.0, "googlenet": 27.6, "vgg16": 171.0}
PUBLISHED = (
    Published("raspberry_pi_4", "mobilenet_v2", "ncnn", 72.6),
    Published("raspberry_pi_4", "resnet18", "ncnn", 176.2),
    Published("raspberry_pi_4", "googlenet", "ncnn", 143.1),
    Published("raspberry_pi_5", "mobilenet_v2", "PyTorch eager", 72.15),
    Published("raspberry_pi_5", "googlenet", "ExecuTorch", 90.77),
    Published("raspberry_pi_5", "squeezenet1_0", "ExecuTorch", 20.22),
    *(Published("jetson_tx2", name, "TensorFlow", ms, tuple(TX2_MAX_N.items())) for name, ms in ON_TX2.items()),
)


@cache
def whole(network: str) -> Half:
    """The whole of a torchvision network as a head; its shapes decide, so its weights are drawn at random."""
    build = getattr(models, network)
    if network == "googlenet":
        build = partial(build, aux_logits=False, init_weights=False)
    graph = SplitGraph(build().eval(), (3, 224, 224))
    point = graph.points[-1]
    return Half("head", point.name, torch.nn.Identity(), (), point.head_ops, graph.fingerprint)


def predicted_ms(public: Published) -> float:
    """What the machine's file says of the network."""
    config = OmegaConf.merge(OmegaConf.load(MACHINES / f"{public.machine}.yaml"), dict(public.clocks))
    return 1e3 * instantiate(config).time_s(whole(public.network))


def main() -> None:
    """Print the table."""
    print(f"{'machine':18}{'network':16}{'runtime':16}{'published ms':>13}{'file says':>11}{'ratio':>7}")
    ratios: dict[str, list[float]] = {}
    for public in PUBLISHED:
        says_ms = predicted_ms(public)
        ratios.setdefault(public.machine, []).append(says_ms / public.time_ms)
        print(f"{public.machine:18}{public.network:16}{public.runtime:16}{public.time_ms:13.1f}{says_ms:11.1f}", end="")
        print(f"{says_ms / public.time_ms:7.2f}")
    for machine, found in ratios.items():
        what = f"machine file `{machine}` against public times of {len(found)} networks"
        record(what, f"{min(found):.2f} … {max(found):.2f} ×", "stated", is_missed=False)


if __name__ == "__main__":
    main()
