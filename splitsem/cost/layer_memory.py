"""Peak memory of every operation of a network, as torch's allocator counted it while the network ran."""

import os
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import profiler
from torch.utils import _pytree

from splitsem.splitting.graph import SplitGraph

_SPAN = "splitsem: "


class _Spans(fx.Interpreter):
    """Runs a graph node by node, each node in a span of its own; of a GPU, it notes the most memory in each."""

    def __init__(self, module: fx.GraphModule, device: torch.device) -> None:
        super().__init__(module)
        self.device, self.most_bytes = device, dict[str, int]()

    def run_node(self, n: fx.Node) -> Any:
        """See Interpreter."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with profiler.record_function(f"{_SPAN}{n.name}"):
            made = super().run_node(n)
        if self.device.type == "cuda":
            self.most_bytes[n.name] = torch.cuda.max_memory_allocated(self.device)
        return made


@torch.inference_mode()
def measure_peaks(graph: SplitGraph) -> dict[str, int]:
    """The most bytes that were allocated at once while each operation ran, by its name.

    What the operation reads and makes, what later ones still need, and what its kernel takes for itself, as far as
    torch's allocator gives it (oneDNN's own scratch on the CPU is not in it). The weights are left out; the network's
    input counts until its last reader. One round is enough, since what is allocated does not vary.
    """
    network, example, device = graph.network(), graph.example, graph.device
    network(*example)  # what a first call alone allocates, such as a library's handles
    spans = _Spans(network, device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        spans.run(*example)
        most = {name: num_bytes - before for name, num_bytes in spans.most_bytes.items()}
    else:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell on stderr that there is no GPU
        with profiler.profile(profile_memory=True) as seen:
            spans.run(*example)
        most = _by_span(seen.kineto_results.events())
    inputs = _input_bytes(network, example)
    return {
        node.meta.get("of", node.name): most.get(node.name, 0) + inputs[k]
        for k, node in enumerate(network.graph.nodes)
        if node.op == "call_function"
    }


def _by_span(events: Any) -> dict[str, int]:
    """The most bytes held in each span, from what was allocated (positive) and freed (negative) when."""
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    spans = sorted(
        (event.start_ns(), event.start_ns() + event.duration_ns(), event.name().removeprefix(_SPAN))
        for event in events
        if event.name().startswith(_SPAN)
    )
    held, at, most = 0, 0, {}
    for began_ns, ended_ns, name in spans:
        while at < len(changes) and changes[at][0] < began_ns:
            held, at = held + changes[at][1], at + 1
        most[name] = held
        while at < len(changes) and changes[at][0] <= ended_ns:
            held, at = held + changes[at][1], at + 1
            most[name] = max(most[name], held)
    return most


def _input_bytes(network: fx.GraphModule, example: tuple[Any, ...]) -> list[int]:
    """Bytes of the inputs that are still needed, by place of the node."""
    nodes = list(network.graph.nodes)
    place = {node: k for k, node in enumerate(nodes)}
    tensors = [leaf for leaf in _pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    found = [0] * len(nodes)
    for node, tensor in zip((node for node in nodes if node.op == "placeholder"), tensors, strict=False):
        last = max((place[user] for user in node.users), default=place[node])
        for k in range(last + 1):
            found[k] += tensor.nbytes
    return found
