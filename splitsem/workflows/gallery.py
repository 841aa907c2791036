"""The gallery of a run: the test samples on which the split network and the unsplit one disagree most."""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from splitsem import trees
from splitsem.report.units import format_score, worded
from splitsem.scoring import Batches, Scored, score_samples
from splitsem.tasks.task import Task
from splitsem.workflows import evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.drawing import Drawing
from splitsem.workflows.gallery_forms import Form, Kept, form_of
from splitsem.workflows.result import Metrics

_MOST_BYTES = 2**28  # of unsplit results in memory; samples beyond are scored, but not compared
_unsplit: dict[tuple[Any, ...], Tensor] = {}  # of the network that ran last


def fresh_gallery(cfg: DictConfig, network: Network) -> "Gallery":
    """A gallery to fill, of ``workflow.gallery`` samples.

    The unsplit results are kept for the next job of a sweep.
    """
    form, key = form_of(network.task), (network.key, cfg.trainer.batch_size, cfg.workflow.num_samples)
    if key not in _unsplit:
        rows: list[Tensor] = []
        num_bytes = 0

        def run(x: Any) -> Any:
            nonlocal num_bytes
            output = network.run(x)
            if num_bytes < _MOST_BYTES:
                rows.append(form.results(output))
                num_bytes += rows[-1].nbytes
            return output

        evaluation.score_unsplit(cfg, network, "test", run)
        _unsplit.clear()
        _unsplit[key] = torch.cat(rows)
    return Gallery(form, _unsplit[key], cfg.workflow.gallery)


class Gallery:
    """Looks at each result as it is scored, and keeps the samples with the largest disagreement.

    Args:
        form: of the results.
        unsplit: the unsplit network's results for the same samples, in order; a row a sample.
        most: how many samples it keeps.
    """

    def __init__(self, form: Form, unsplit: Tensor, most: int) -> None:
        self._form, self._unsplit, self._most = form, unsplit, most
        self._kept: list[tuple[float, int, Kept]] = []  # a heap, the smallest disagreement first
        self._num = 0

    def score(self, run: Callable[[Any], Any], task: Task, batches: Batches, tail: nn.Module | None = None) -> Scored:
        """``score_samples``, with a look at all that is scored.

        Args:
            run: as in ``score_samples``.
            task: as in ``score_samples``.
            batches: as in ``score_samples``.
            tail: what computes the outputs that become answers, where it runs in this process: an answer that names a
                class does not say how sure the network is.
        """
        output: list[Any] = []

        def look(x: Any) -> Any:
            output[:] = [run(x)]
            return output[0]

        def seen() -> Iterator[tuple[Any, Any]]:
            for x, y in batches:
                yield x, y
                self.add(x, y, output[0], torch.cat(raw) if raw else None)
                raw.clear()

        with _outputs_of(tail) as raw:
            return score_samples(look, task, seen())

    def add(self, x: Any, y: Any, output: Any, raw: Tensor | None = None) -> None:
        """Compare a batch; those of its samples that disagree more than the ones kept take their places."""
        split = self._form.results(output, raw)
        unsplit = self._unsplit[self._num : self._num + len(split)]
        split = split[: len(unsplit)]
        if not len(unsplit):
            return
        disagreement = self._form.disagreement(unsplit, split).nan_to_num(torch.inf, torch.inf)
        for place in disagreement.argsort(descending=True, stable=True)[: self._most].tolist():
            key = float(disagreement[place]), -(self._num + place)
            if len(self._kept) < self._most or key > self._kept[0][:2]:
                results = unsplit[place].clone(), split[place].clone()
                kept = Kept(self._num + place, _row(x, place), _row(y, place), *results)
                (heapq.heappush if len(self._kept) < self._most else heapq.heapreplace)(self._kept, (*key, kept))
        self._num += len(split)

    def figures(self, metrics: Metrics) -> dict[str, Drawing]:
        """The gallery by its file's name, the largest disagreement first; ``metrics`` say of what run."""
        ranked = sorted(self._kept, key=lambda one: one[:2], reverse=True)
        num_other = sum(disagreement > 0 for disagreement, _, _ in ranked)
        title = f"Unsplit beside split: the {len(ranked)} largest disagreements of {self._num:,} samples"
        if not num_other:
            title = f"Unsplit beside split: no result of {self._num:,} samples differs"
        names = ("task", "model", "codec", "transport")
        about = [f"cut at {metrics['split_point']}", *(str(metrics[name]) for name in names)]
        scored = f"score {format_score(metrics['score'])}, unsplit {format_score(metrics['score_unsplit'])}"
        about.append(worded(scored, metrics["score_name"]))
        return {"gallery": self._form.draw([kept for _, _, kept in ranked], title, " · ".join(about))}


def _row(batch: Any, place: int) -> Any:
    """One sample of a batch, on the CPU and in memory of its own."""
    return trees.mapped(lambda tensor: tensor[place : place + 1].cpu().clone(), batch)


@contextmanager
def _outputs_of(tail: nn.Module | None) -> Iterator[list[Tensor]]:
    """What ``tail`` returns, call by call, as far as it is one tensor."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output)

    hook = None if tail is None else tail.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        if hook is not None:
            hook.remove()
