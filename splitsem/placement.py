"""Placement: where torch really runs now (the modelled machines are in splitsem.cost)."""

import ctypes
import platform
from typing import Literal, TypeVar

import torch
from torch import nn

from splitsem.errors import ConfigError
from splitsem_device import this_machine

Accelerator = Literal["auto", "cpu", "cuda", "rocm"]
Precision = Literal["float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ACCELERATORS = ("auto", "cpu", "cuda", "rocm")
_Model = TypeVar("_Model", bound=nn.Module)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


class Placement:
    """Where and how precisely models run in this process.

    Args:
        accelerator: ``cpu``, ``cuda`` (an NVIDIA GPU), ``rocm`` (an AMD GPU), or ``auto``: a GPU if there is one.
        precision: the dtype of the model's floating-point parameters and inputs.
        num_threads: CPU threads of one operation; None leaves torch's own choice.

    Attributes:
        torch_device: the resolved ``torch.device``; torch calls a ROCm GPU ``cuda``, too.
        dtype: the resolved ``torch.dtype``.

    Raises:
        ConfigError: this machine has no such accelerator; the message says what this torch was built for.
    """

    def __init__(
        self,
        accelerator: Accelerator = "auto",
        precision: Precision = "float32",
        num_threads: int | None = None,
    ) -> None:
        if accelerator not in _ACCELERATORS:
            raise ValueError(f"accelerator must be one of {', '.join(_ACCELERATORS)}, got {accelerator!r}")
        if precision not in _DTYPES:
            raise ValueError(f"precision must be one of {', '.join(_DTYPES)}, got {precision!r}")
        if num_threads is not None and not 1 <= num_threads <= 1024:
            raise ValueError(f"num_threads must be 1…1024, or null for torch's choice, got {num_threads}")
        self.accelerator = accelerator
        self.precision = precision
        self.num_threads = num_threads
        self.torch_device = _resolve(accelerator)
        self.dtype = _DTYPES[precision]

    def set_threads(self) -> None:
        """Apply ``num_threads`` to this process."""
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)

    def place(self, model: _Model) -> _Model:
        """Move the model here and cast its floating-point parameters and buffers; in place, as ``Module.to``."""
        return model.to(device=self.torch_device, dtype=self.dtype)

    def place_tensor(self, x: torch.Tensor) -> torch.Tensor:
        """Move a tensor here; only a floating-point one is cast."""
        return x.to(device=self.torch_device, dtype=self.dtype if x.is_floating_point() else x.dtype)


def keep_freed_memory() -> None:
    """Make glibc keep the memory that this process frees, for reuse; leave any other C library as it is.

    By default, glibc hands blocks above 32 MiB back to the kernel, and the kernel must clear each page before reuse:
    half the time of a training step with activations of that size. The price: the process never becomes smaller.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def built_for() -> str:
    """What this torch can run on, in words: ``CUDA 13.0``, ``ROCm 6.4`` or ``the CPU only``."""
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda is not None else "the CPU only"


def describe_machine() -> dict[str, str]:
    """The machine that this process runs on, in words: processor, cores, system and GPU if there is one."""
    description = this_machine.described()
    if torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
    return description


def describe_run(accelerator: str | None = None) -> dict[str, str]:
    """``describe_machine`` with torch's version, the threads that are set and, where given, the accelerator."""
    words = {**describe_machine(), "num_threads": str(torch.get_num_threads()), "torch": str(torch.__version__)}
    return words if accelerator is None else words | {"accelerator": accelerator}


def _resolve(accelerator: str) -> torch.device:
    if accelerator == "cpu":
        return torch.device("cpu")
    available = torch.cuda.is_available()
    if accelerator == "auto":
        return torch.device("cuda" if available else "cpu")
    built = torch.version.hip if accelerator == "rocm" else torch.version.cuda
    if built is None:
        raise ConfigError(
            f"device={accelerator} is not possible: this torch was built for {built_for()}; try device=auto"
        )
    if not available:
        raise ConfigError(
            f"device={accelerator}: this torch was built for {built_for()}, but finds no GPU (driver loaded? "
            f"CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES set?); try device=auto"
        )
    return torch.device("cuda")
