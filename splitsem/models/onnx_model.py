"""OnnxModel: any ONNX file as a network: it runs whole in onnxruntime, and is cut at its own tensors."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from splitsem import extras
from splitsem.errors import ModelError
from splitsem.models.onnx_prepare import prepared
from splitsem.onnx_program import (
    OnnxProgram,
    Optimisation,
    Session,
    as_dtype,
    as_tensor,
    by_name,
    in_words,
    structured,
)
from splitsem.trees import is_same, joined, num_samples, rows

_MOST_BYTES = 2**31 - 1  # of a message of protobuf


class OnnxModel(nn.Module):
    """An ONNX file, run whole by onnxruntime on the CPU.

    Inputs come by position in the file's order, or by name; the output is a tensor, or several by name. A batch runs
    sample by sample, as it does in the halves of a cut.

    Args:
        path: the file.
        outputs: names of the tensors that it returns, also of such as are no outputs of the file; None: its outputs.
        constants: inputs that have one value, by name: ``{"sr": 16000}``.
        state: inputs that are kept from call to call, and the outputs that become their next values:
            ``{"state": "stateN"}``. Each call begins with zeros, until ``begin_stream``.
        optimisation: how far onnxruntime rewrites the file: ``none``, ``basic`` (folds constants and norms) or
            ``extended`` (also fuses operations). Its last level, another memory layout, is of one kind of processor.
        output_shape: the task's; not empty where it takes one tensor.

    Raises:
        ModelError: there is no such file, it is no ONNX file, lacks a part, or this onnxruntime cannot run it; or it
            has no such input or output.
    """

    brings_weights = True
    why_frozen = "an ONNX file runs in onnxruntime, through which no gradient passes"

    def __init__(
        self,
        path: str,
        outputs: Sequence[str] | None = None,
        constants: Mapping[str, Any] | None = None,
        state: Mapping[str, str] | None = None,
        optimisation: Optimisation = "extended",
        output_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if optimisation not in get_args(Optimisation):
            raise ValueError(f"optimisation must be one of {', '.join(get_args(Optimisation))}, got {optimisation!r}")
        with extras.needed("export", "model=onnx"):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        self.path, self.optimisation, self.state = path, optimisation, dict(state or {})
        self._proto = read(path)
        self.sha256: Tensor
        digest = hashlib.sha256(self._proto.SerializeToString(deterministic=True)).digest()
        self.register_buffer("sha256", torch.tensor(list(digest), dtype=torch.uint8))  # stands for all weights
        self._set_constants(constants or {})
        self._set_outputs(outputs)
        if output_shape and len(self.outputs) > 1:
            raise ModelError(
                f"{path} returns {len(self.outputs)} tensors, and the task takes one: choose it, "
                f"outputs=[{self.outputs[0]}] (of {', '.join(self.outputs)})"
            )
        self._session = Session(self._proto, path, optimisation)
        self._program: OnnxProgram | None = None
        self._kept: dict[str, Tensor] | None = None

    def extra_repr(self) -> str:
        """See Module."""
        return f"{self.path}, {bytes(self.sha256.tolist()).hex()[:16]}"

    def begin_stream(self) -> None:
        """Keep the state from call to call from now on, beginning with zeros."""
        self._kept = self._zeros()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """What the file makes of the inputs. Raises ModelError for inputs of other names, shapes or types."""
        given = by_name(self.inputs, inputs, named, self.path)
        batches = {len(tensor) if tensor.dim() == self._rank(name) > 0 else 1 for name, tensor in given.items()}
        own = 1 if self._program is None else num_samples(self._program.example)
        if own == 1 and len(batches) == 1 and batches != {1}:
            return joined([self._one(row) for row in rows(given)])
        return self._one(given)

    def program(self, *inputs: Tensor, **named: Tensor) -> OnnxProgram:
        """The graph for inputs of these sizes.

        Raises:
            ModelError: onnxruntime cannot run it, or makes something else of it when the sizes are fixed.
        """
        example = self._checked(by_name(self.inputs, inputs, named, self.path))
        for sizes_first in (
            True,
            False,
        ):  # with sizes known, more branches go
            self._program = prepared(self._facts(example), self._zeros(), self.optimisation, sizes_first)
            if self._is_exact(self._program):
                return self._program
        raise ModelError(
            f"{self.path} cannot be split: onnxruntime computes something else in a second run; a file must draw no "
            "random numbers (an export in eval mode has none)"
        )

    def _facts(self, example: Mapping[str, Tensor]) -> OnnxProgram:
        """The program before anything is known of its nodes."""
        return OnnxProgram(self.path, self._proto, self.inputs, self.outputs, self.state, {}, example)

    def _is_exact(self, program: OnnxProgram) -> bool:
        """Whether it computes what the file does, for the example and for half of it."""
        whole = program.part(slice(None), program.inputs, program.outputs)
        for scale in (1, 0.5):
            x = {name: (scale * tensor).to(tensor.dtype) for name, tensor in program.example.items()}
            y = {name: as_tensor(array) for name, array in self._session({**x, **self._zeros()}).items()}
            if not is_same(tuple(y[name] for name in program.outputs), whole(**x)):
                return False
        return True

    def _rank(self, name: str) -> int:
        """The number of an input's dimensions; -1 where the file does not say it."""
        shape = self.forms[name][1]
        return -1 if shape is None else len(shape)

    def _one(self, given: Mapping[str, Tensor]) -> Any:
        kept = self._zeros() if self._kept is None else self._kept
        made = {name: as_tensor(array) for name, array in self._session({**self._checked(given), **kept}).items()}
        if self._kept is not None:
            self._kept = {old: made[new] for old, new in self.state.items()}
        return structured(self.outputs, [made[name] for name in self.outputs])

    def _set_constants(self, constants: Mapping[str, Any]) -> None:
        """Make constants of inputs, and know the others by name."""
        import onnx

        graph = self._proto.graph
        weights = {weight.name for weight in graph.initializer}
        declared = {value.name: value for value in graph.input if value.name not in weights}
        for name in (*constants, *self.state):
            if name not in declared:
                raise ModelError(f"{self.path} has no input {name!r}; it has {', '.join(declared)}")
            if name in self.state and not declared[name].type.tensor_type.HasField("shape"):
                raise ModelError(f"{self.path} does not say which shape its input {name} has, so that it is no state")
        self.forms = {name: _form(value, self.path) for name, value in declared.items()}
        for name, value in constants.items():
            dtype, shape = self.forms.pop(name)
            array = np.asarray(value, dtype)
            if shape is not None and array.ndim != len(shape):
                raise ModelError(f"{self.path}: model.constants.{name} must have {len(shape)} dimensions, got {value}")
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        kept = [value for value in graph.input if value.name in self.forms]
        graph.ClearField("input")
        graph.input.extend(kept)
        self.inputs = tuple(name for name in self.forms if name not in self.state)
        if not self.inputs:
            raise ModelError(f"{self.path} takes no input")

    def _set_outputs(self, outputs: Sequence[str] | None) -> None:
        import onnx

        graph = self._proto.graph
        known = {value.name: value for value in graph.output}
        new = list(self.state.values())
        self.outputs = tuple(name for name in known if name not in new) if outputs is None else tuple(outputs)
        there = {name for node in graph.node for name in node.output if name} | set(known)
        for name in (*self.outputs, *new):
            if name not in there:
                raise ModelError(f"{self.path} has no tensor {name!r}; its outputs are {', '.join(known)}")
        if not self.outputs:
            raise ModelError(f"{self.path} returns nothing but state")
        values = [known.get(name) or onnx.ValueInfoProto(name=name) for name in dict.fromkeys((*self.outputs, *new))]
        graph.ClearField("output")
        graph.output.extend(values)

    def _zeros(self) -> dict[str, Tensor]:
        """The state at the beginning, of one sample."""
        forms = ((name, self.forms[name]) for name in self.state)
        return {name: as_tensor(np.zeros([size or 1 for size in shape or ()], dtype)) for name, (dtype, shape) in forms}

    def _checked(self, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """The inputs, which fit what the file says of them. Raises ModelError."""
        for name, tensor in given.items():
            dtype, shape = self.forms[name]
            if not _fits(tensor, dtype, shape):
                needed = f"{dtype}[{'…' if shape is None else ', '.join(str(size or 'any') for size in shape)}]"
                got = in_words(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ModelError(f"{self.path} takes {name} as {needed}, got {got}; the sample must have this form")
        return dict(given)


def _fits(tensor: Any, dtype: Any, shape: tuple[int | None, ...] | None) -> bool:
    if not isinstance(tensor, Tensor) or tensor.dtype is not as_dtype(dtype):
        return False
    sizes = tuple(tensor.shape)
    return shape is None or (
        len(sizes) == len(shape) and all(size in (None, got) for size, got in zip(shape, sizes, strict=True))
    )


def read(path: str) -> Any:
    """An ONNX file with its external data. Raises ModelError where it is not there, damaged or not whole."""
    import onnx
    from google.protobuf.message import DecodeError

    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"there is no file {path}")
    try:
        proto = onnx.load(file, load_external_data=False)
    except DecodeError:
        proto = onnx.ModelProto()
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc}") from exc
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{path} is no ONNX file, or a damaged one")
    external = {name: file.parent / name for name in _external(proto)}
    for name, part in external.items():
        if not part.is_file():
            raise ModelError(f"{path} keeps weights in {name}, which is not beside it: put it there")
    if sum(part.stat().st_size for part in (file, *external.values())) > _MOST_BYTES:
        raise ModelError(f"{path} has more than 2 GB, which no graph in memory may have")
    try:
        onnx.load_external_data_for_model(proto, str(file.parent))
    except (onnx.checker.ValidationError, ValueError, OSError) as exc:
        raise ModelError(f"{path}: its external data cannot be read: {' '.join(str(exc).split())}") from exc
    return proto


def _external(proto: Any) -> Iterator[str]:
    """Names of the files that hold weights of the graph."""
    for weight in proto.graph.initializer:
        yield from (entry.value for entry in weight.external_data if entry.key == "location")


def _form(value: Any, path: str) -> tuple[np.dtype[Any], tuple[int | None, ...] | None]:
    """An input's type, and its sizes as far as they are known; None where not even their number is."""
    import onnx

    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else None
    if dtype is None or as_dtype(dtype) is None:
        raise ModelError(f"{path}: its input {value.name} is no tensor of numbers that torch has")
    sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return np.dtype(dtype), sizes if kind.HasField("shape") else None
