"""Random numbers of one half in one step: seeded by run, step and side, whatever else draws in this process."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Literal

import torch

_generator = threading.Lock()  # torch's generator is one for the whole process


@contextlib.contextmanager
def seeded(seed: int, step: int, side: Literal["head", "tail"], device: torch.device) -> Iterator[None]:
    """Draw from a stream of this step and side; the process's own goes on afterwards as if nothing had been drawn.

    A half on another machine cannot continue the other's stream, and a server draws for several devices; so dropout
    masks differ from those of unsplit training, but are the same in every run with this seed.
    """
    digest = hashlib.sha256(f"{seed} {step} {side}".encode()).digest()
    with _generator, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:8], "little"))
        yield
