"""How often a set of operations that no split point cuts off is the best head, on modelled machines.

    python benchmarks/any_cut.py                 # two minutes

Thirty cases a network: three pairs of rooflines, five rates, least latency and least cycle, a codec that leaves a fifth
of the raw bytes. ``gain``: the best split point's value over that of the best set, less one. A set that wins is cut and
run; its output must equal the network's, bit for bit.
"""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torchvision import models

from splitsem.cost.machines import Roofline
from splitsem.models.unet import UNet
from splitsem.search.min_cut import Sending, best_anywhere, part_times_s, stages_of
from splitsem.search.objective import cycle, latency
from splitsem.splitting.graph import SplitGraph

PI = Roofline(48e9, 5.5e9, 6.4, 2.7, 0.5, 30e-6, 1.05e9)
LAPTOP = Roofline(6e11, 4e10, 15, 5, 0.6, 2e-5)
GPU = Roofline(1e13, 5e11, 300, 50, 0.5, 1e-5)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "googlenet": (lambda: models.googlenet(init_weights=False, aux_logits=False), 128),
    "inception_v3": (lambda: models.inception_v3(init_weights=False, aux_logits=False), 160),
    "shufflenet_v2_x1_0": (models.shufflenet_v2_x1_0, 128),
    "resnet18": (models.resnet18, 128),
    "unet": (lambda: UNet((3, 64, 64), (12, 64, 64)), 64),
    "densenet121": (models.densenet121, 96),
    "squeezenet1_1": (models.squeezenet1_1, 128),
}


def main() -> None:
    """Print a line a network."""
    warnings.filterwarnings("ignore")
    for name, (build, size) in NETWORKS.items():
        graph = SplitGraph(build().eval(), (3, size, size), granularity="op")
        parts = graph.parts()
        places = {part.name: k for k, part in enumerate(parts)}
        prefixes = [np.arange(len(parts)) <= places[point.name] for point in graph.points]
        gains, longest_s, best = [], 0.0, None
        for edge, server in ((PI, GPU), (LAPTOP, GPU), (PI, LAPTOP)):
            edge_s, server_s = part_times_s(parts, edge), part_times_s(parts, server)
            for bps in (3e5, 1e6, 3e6, 1e7, 1e8):
                by = Sending(
                    codec="a fifth", ratio=0.2, busy_s_per_byte=8 / bps, delay_s=0.005,
                    encode_s_per_byte=1 / 8e6, decode_s_per_byte=1 / 50e6,
                )  # fmt: skip
                for objective in (latency(), cycle()):
                    began = time.process_time()
                    found = best_anywhere(parts, edge_s, server_s, [by], objective)
                    longest_s = max(longest_s, time.process_time() - began)
                    offered = min(float(objective(stages_of(parts, p, edge_s, server_s, by), 0)) for p in prefixes)
                    gains.append(offered / found.value - 1)
                    if gains[-1] == max(gains):
                        best = found
        won = [gain for gain in gains if gain > 1e-6]
        print(f"{name:20} {len(parts)} operations, solved in {longest_s:.2f} s at most; ", end="")
        print(f"no split point in {len(won)} of {len(gains)} cases, gain {max(won, default=0):.1%} at most", end="")
        if won and best is not None:
            x, cut = torch.rand(2, 3, size, size), graph.cut_anywhere(best.head)
            with torch.inference_mode():
                same = torch.equal(cut.tail(*cut.head(x)), graph.cut("output").head(x)[0])
            print(f", {len(cut.point.tensors)} tensors, {'exact' if same else 'NOT EXACT'}", end="")
        print(flush=True)


if __name__ == "__main__":
    main()
