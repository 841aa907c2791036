"""Samples: whatever a network takes, without labels, by agreement: a folder of pictures, an array, a generator."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from splitsem.errors import DataError
from splitsem.tasks.agreement import OwnResults, all_values, likeliest_of_first
from splitsem.tasks.agreement_metrics import SameClasses, SameValues
from splitsem.tasks.answer import AnswerCoder
from splitsem.tasks.metrics import Metrics
from splitsem.tasks.pictures import checked_white, find_pictures, read_picture
from splitsem.tasks.task import Splits, Task
from splitsem.trees import by_path, leaves, mapped
from splitsem_device.picture_input import PictureInput

Compared = Literal["classes", "values"]
_FEWEST = 3  # one sample for each of train, val and test


class Samples(Task):
    """Samples without labels; the score is how far the network's results stay what they are without a cut.

    Args:
        source: a folder of pictures, at any depth; a ``.npy`` file, whose first dimension counts the samples; or a
            Python object by its dotted name (``__main__`` in a notebook): an array, a list of samples, or a function
            that gives an iterable of them. A sample is what the network takes, without the batch: an array, a tuple of
            arrays by position, a mapping of arrays by name.
        compare: ``"classes"``: the share of places where the likeliest class (dimension 1 of the network's first
            tensor) stays the same; ``"values"``: of all tensors together, the share of the squares' sum that is no
            error, ``1 − |ŷ − y|² / |y|²``, at least 0; both are means over samples.
        image_size: height and width given to the network, of pictures in a folder.
        most: so many samples at most, the first ones; None: all, which must end.
        train_fraction: share of the samples that codecs may be trained on.
        val_fraction: share for choosing; the rest is test.
        seed: which samples are in which split.
        white: brightest value of pictures of more than 8 bits that do not state it.
    """

    is_agreement = True

    def __init__(
        self,
        source: str,
        compare: Compared = "classes",
        image_size: int = 224,
        most: int | None = 1000,
        train_fraction: float = 0.3,
        val_fraction: float = 0.2,
        seed: int = 0,
        white: float | None = None,
    ) -> None:
        if compare not in get_args(Compared):
            raise ValueError(f"compare must be one of {', '.join(get_args(Compared))}, got {compare!r}")
        if image_size < 1 or (most is not None and most < _FEWEST):
            raise ValueError(f"image_size must be at least 1, and most at least {_FEWEST}, got {image_size} and {most}")
        if not (train_fraction > 0 and val_fraction > 0 and train_fraction + val_fraction < 1):
            raise ValueError(
                "train_fraction and val_fraction must be above 0 and leave a rest for test, "
                f"got {train_fraction} and {val_fraction}"
            )
        self.compare, self.image_size, self.most, self.seed = compare, image_size, most, seed
        self.fractions, self.white = (train_fraction, val_fraction), checked_white(white)
        self.path = Path(source) if Path(source).exists() else None
        self.samples = self._read(source)
        if len(self.samples) < _FEWEST:
            raise DataError(f"{source} has {len(self.samples)} samples; train, val and test need one each")
        self.is_image = isinstance(self.samples, _Pictures)
        first = self.samples[0]
        self.input_shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        self.output_shape = ()
        self.input_bytes = sum(x.numel() * (1 if self.is_image else x.element_size()) for x in leaves(first))
        self._splits: Splits | None = None

    def example(self) -> Any:
        """The first sample as a batch of one."""
        return mapped(lambda tensor: tensor[None], self.samples[0])

    def data_paths(self) -> Sequence[Path]:
        """The folder or the file; nothing tells when what a Python object gives has changed."""
        return () if self.path is None else (self.path,)

    def picture_input(self) -> PictureInput | None:
        """See Task."""
        found = super().picture_input()
        return None if found is None else found._replace(fit="stretch", resample="bicubic")

    def splits(self) -> Splits:
        """Three parts of the samples, drawn by ``seed``; the targets are the unsplit network's results."""
        if self._splits is None:
            order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(self.seed)).tolist()
            num_train, num_val = (max(1, round(share * len(order))) for share in self.fractions)
            num_train = min(num_train, len(order) - num_val - 1)
            parts = order[:num_train], order[num_train : num_train + num_val], order[num_train + num_val :]
            targets = likeliest_of_first if self.compare == "classes" else all_values
            self._splits = Splits(*(OwnResults(Subset(self.samples, sorted(part)), targets) for part in parts))
        return self._splits

    def label_by(self, network: Callable[[Any], Any]) -> None:
        """Take what this network finds as the target of each sample."""
        for split in self.splits():
            assert isinstance(split, OwnResults)
            split.label_by(network)

    def answer_coder(self) -> AnswerCoder:
        """None is known. Raises DataError."""
        raise DataError("task=samples does not know what its user needs of the output: let all travel, answer=raw")

    def loss(self, y_hat: Any, y: Tensor) -> Tensor:
        """There is none. Raises DataError."""
        raise DataError("task=samples has no labels to train by; a codec learns from the network's own results")

    def metrics(self) -> Metrics:
        """``score``, see ``compare``."""
        return Metrics({"score": SameClasses() if self.compare == "classes" else SameValues()})

    def _read(self, source: str) -> "_Pictures | _Kept":
        if self.path is not None and self.path.is_dir():
            paths, _ = find_pictures(self.path)
            return _Pictures(paths[: self.most], self.image_size, self.white)
        if self.path is not None:
            try:
                return _Kept(np.load(self.path, mmap_mode="r", allow_pickle=False)[: self.most])
            except (OSError, ValueError, IndexError) as exc:
                raise DataError(f"{source}: expected a folder of pictures or an array in a .npy file: {exc}") from exc
        try:
            found = resolve_name(source)
        except (ImportError, AttributeError, ValueError) as exc:
            raise DataError(f"source={source} is no folder, no .npy file and no Python object: {exc}") from exc
        given = found() if callable(found) else found
        if not isinstance(given, Iterable) or isinstance(given, str | bytes):
            raise DataError(f"{source} gives {type(given).__name__}; expected an array, a list or a function of none")
        return _Kept(list(itertools.islice(given, self.most)))


class _Pictures(Dataset[Tensor]):
    """Pictures of files, float32 in [0, 1]."""

    def __init__(self, paths: Sequence[Path], image_size: int, white: float | None) -> None:
        self.paths, self.size, self.white = paths, (image_size, image_size), white

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Picture number ``index``, ``(3, image_size, image_size)``."""
        picture = read_picture(self.paths[index], self.white).resize(self.size, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


class _Kept(Dataset[Any]):
    """Samples in memory, as tensors. Raises DataError where one differs from the first in form."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples
        self._form: dict[str, tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Sample number ``index``, a structure of tensors."""
        sample = _tensors(self.samples[index])
        form = {path: (tuple(tensor.shape), tensor.dtype) for path, tensor in by_path(sample).items()}
        if self._form is None:
            self._form = form
        if not form or form != self._form:
            said = " ".join(f"{path} {shape} {dtype}" for path, (shape, dtype) in form.items()) or "no tensor"
            raise DataError(f"sample {index} has {said}; expected arrays of one shape and dtype in all samples")
        return sample


def _tensors(sample: Any) -> Any:
    """The structure with tensors in place of arrays and numbers; double precision becomes single."""
    if isinstance(sample, dict):
        return {key: _tensors(part) for key, part in sample.items()}
    if isinstance(sample, tuple):
        return tuple(map(_tensors, sample))
    if isinstance(sample, Tensor):
        return sample.float() if sample.dtype is torch.float64 else sample
    try:
        tensor = torch.from_numpy(np.array(sample))
    except TypeError as exc:
        raise DataError(f"a sample is an array, or a tuple or dict of them, got {type(sample).__name__}") from exc
    return tensor.float() if tensor.dtype is torch.float64 else tensor
