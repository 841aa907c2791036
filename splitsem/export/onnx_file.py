"""The device's half as ONNX, in float32 and with int8 convolutions; needs the optional extra ``export``."""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

INPUT = "x"
_QUANTISED = ["Conv", "MatMul", "Gemm"]  # norms, levels and what chooses among them stay in float32


def is_available() -> bool:
    """Whether what writes and runs ONNX files is installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


def write(program: ExportedProgram, path: Path, outputs: Sequence[str]) -> None:
    """Write the program as one ONNX file, weights included, with the input ``x`` and these names of its outputs."""
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(outputs)}
    with _quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert made is not None
    made.save(path, external_data=False)


def write_int8(source: Path, path: Path, samples: Iterable[Tensor]) -> None:
    """Write a variant of ``source`` whose convolutions and products run on int8, weights by output channel.

    Args:
        source: of ``write``.
        path: of the variant.
        samples: inputs ``(1, *input_shape)`` from which the ranges of the activations are taken.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """The samples, one by one."""

        def __init__(self) -> None:
            self._inputs = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            x = next(self._inputs, None)
            return None if x is None else {INPUT: x.numpy()}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready = Path(folder) / "ready.onnx"
        quantization.quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantization.quantize_static(ready, path, Reader(), per_channel=True, op_types_to_quantize=_QUANTISED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporters' progress is not logged, and what their own libraries call outdated is not warned of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)


class OnnxDevice:
    """Runs a file of ``write`` or ``write_int8`` on the CPU, one thread.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def outputs(self, x: Tensor) -> list[NDArray[Any]]:
        """What the file puts out for one sample ``(1, *input_shape)``, e.g. symbols ``(1, N)``; for a framing."""
        return self._session.run(None, {INPUT: x.numpy()})
