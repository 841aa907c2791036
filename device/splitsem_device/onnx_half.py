"""OnnxHalf: an ONNX file with a part of a network, run by onnxruntime on the CPU."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitsem_device.errors import ConfigError
from splitsem_device.peer_text import shown

Array = NDArray[Any]
# What onnxruntime says of what it lacks: an operation of an opset, or a kernel for its types.
_LACKS = (
    re.compile(r"Could not find an implementation for ([\w.:]+)\((-?\d+)\)"),
    re.compile(r"No Op registered for (\w+) with domain_version of (\d+)"),
    re.compile(r"Fatal error: ([\w.:]+)\((-?\d+)\) is not a registered function/op"),
)
_NEWER = re.compile(r"Opset (\d+) is under development|Unsupported model IR version: (\d+)")


class OnnxHalf:
    """Runs on the CPU; loading takes onnxruntime's time, importing this module does not.

    Args:
        content: of the ONNX file.
        name: of the file, for messages.
        num_threads: of one operation.
        made_by: version of onnxruntime that is known to run the file; empty: not known.

    Attributes:
        inputs: the names of its inputs.
        outputs: the names of its outputs.

    Raises:
        ConfigError: there is no onnxruntime, or it cannot run this file.
    """

    def __init__(self, content: bytes, name: str, num_threads: int = 1, made_by: str = "") -> None:
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as exc:
            raise ConfigError(f"{name} needs onnxruntime ({shown(exc)}): pip install onnxruntime") from exc
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.enable_cpu_mem_arena = False  # which keeps what the largest operation needed
        options.log_severity_level = 3
        refusals = (state.Fail, state.InvalidGraph, state.NotImplemented, state.InvalidProtobuf, state.RuntimeException)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except refusals as exc:
            raise ConfigError(_why(str(exc), name, onnxruntime.__version__, made_by)) from exc
        self.inputs = [one.name for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The file's outputs, in order; an input that no operation reads may not be in the file."""
        made: list[Array] = self._session.run(None, {name: inputs[name] for name in self.inputs})
        return [np.asarray(one) for one in made]


def _why(said: str, name: str, version: str, made_by: str) -> str:
    """One line: what this onnxruntime lacks, and what to do."""
    remedy = f"pip install 'onnxruntime>={made_by}'" if made_by else "install a newer onnxruntime"
    remedy += ", or make the bundle anew with the format float32"
    for pattern in _LACKS:
        if found := pattern.search(said):
            opset = f" of opset {found[2]}" if int(found[2]) > 0 else ""
            return f"{name}: onnxruntime {version} here lacks the operation {found[1]}{opset} or its types: {remedy}"
    if found := _NEWER.search(said):
        what = f"opset {found[1]}" if found[1] else f"ONNX's format {found[2]}"
        return f"{name} is of {what}, which onnxruntime {version} here does not know: {remedy}"
    return f"{name} is no file that onnxruntime {version} can run: {shown(said.rpartition(' : ')[2])}; {remedy}"
