"""Batcher: runs frames of several devices through one tail together, without making any of them wait for company."""

import threading
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Tensors


@dataclass(eq=False)
class _Job:
    z: Tensors
    woken: threading.Lock = field(default_factory=threading.Lock)  # held until it is done or its turn to run
    output: Tensor | None = None
    error: BaseException | None = None


class Batcher:
    """A tail that is run by one thread at a time, each time on everything that has arrived meanwhile, oldest first.

    A frame that finds the tail idle is computed at once and alone. A stream has one frame here at most, so that first
    come, first served is fair between devices. Batched kernels may round differently in the last bit.

    The thread that finds the tail idle runs it; when it is done, it wakes those whose frames it ran, and the oldest
    frame's thread of those that came meanwhile is the next to run. Nobody waits for a run that his frame is not in.

    Args:
        tail: takes tensors whose dimension 0 is the batch.
        max_samples: samples of one run; a single larger frame is run by itself.
    """

    def __init__(self, tail: nn.Module, max_samples: int) -> None:
        self.tail, self.max_samples = tail, max_samples
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._is_running = False

    def __call__(self, *z: Tensor) -> Tensor:
        """The tail's output for these tensors."""
        job = _Job(z)
        job.woken.acquire()
        with self._lock:
            self._jobs.append(job)
            runs, self._is_running = not self._is_running, True
        if not runs:
            job.woken.acquire()
        if job.output is None and job.error is None:
            self._run_oldest()
        if job.error is not None:
            raise job.error
        assert job.output is not None
        return job.output

    def _run_oldest(self) -> None:
        """Run the oldest jobs, that of this thread first among them, and pass the tail on."""
        with self._lock:
            jobs = self._take()
        self._run(jobs)
        with self._lock:
            self._is_running = bool(self._jobs)
            successor = self._jobs[0] if self._jobs else None
        for job in (*jobs[1:], *filter(None, [successor])):
            job.woken.release()

    def _take(self) -> list[_Job]:
        """The oldest jobs that fit into one run."""
        jobs = [self._jobs.popleft()]
        num_samples = len(jobs[0].z[0])
        while self._jobs and num_samples + len(self._jobs[0].z[0]) <= self.max_samples:
            num_samples += len(self._jobs[0].z[0])
            jobs.append(self._jobs.popleft())
        return jobs

    def _run(self, jobs: list[_Job]) -> None:
        try:
            if len(jobs) == 1:
                jobs[0].output = self.tail(*jobs[0].z)
                return
            output = self.tail(*(torch.cat(tensors) for tensors in zip(*(job.z for job in jobs), strict=True)))
            for job, part in zip(jobs, output.split([len(job.z[0]) for job in jobs]), strict=True):
                job.output = part
        except BaseException as exc:  # noqa: BLE001 (raised again in each job's own thread)
            for job in jobs:
                job.error = exc
