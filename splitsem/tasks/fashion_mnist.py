"""FashionMnist: 70,000 real 28×28 grey pictures of clothes (Xiao et al., arXiv 1708.07747)."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from splitsem.errors import DataError
from splitsem.tasks.classification import ClassificationTask, ImageTensors, hold_out
from splitsem.tasks.task import Splits

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_ROOT = Path(".cache/data")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
VAL_FRACTION = 1 / 12
IDX_UINT8 = 8


class FashionMnist(ClassificationTask):
    """Ten classes of clothes: 55,000 train, 5,000 val held out of the official training set, the official test set.

    The four idx files, gzipped or not, are looked for in ``root``, in ``root/FashionMNIST/raw`` (torchvision's
    layout), in the folder of Debian's package dataset-fashion-mnist, where ``make data`` puts them and among earlier
    downloads.

    Args:
        root: folder with the data, or None.
        download: whether torchvision may download missing data (into ``root``, or ``.cache/data``).
        seed: which training images are held out for val.
    """

    def __init__(self, root: str | None = None, download: bool = True, seed: int = 0) -> None:
        super().__init__(class_names=FashionMNIST.classes, input_shape=(1, 28, 28))
        self.root = None if root is None else Path(root)
        self.download = download
        self.seed = seed

    def data_paths(self) -> Sequence[Path]:
        """The four files, where they are or where they would be downloaded to."""
        folder = self._find() or self._target()
        return [_file(folder, name) for pair in FILES.values() for name in pair]

    def _load(self) -> Splits:
        folder = self._find() or self._download()
        images, labels = (read_idx(_file(folder, name)) for name in FILES["train"])
        test_images, test_labels = (read_idx(_file(folder, name)) for name in FILES["test"])
        train, val = hold_out(labels, VAL_FRACTION, self.seed)
        return Splits(
            train=ImageTensors(images[train].unsqueeze(1), labels[train]),
            val=ImageTensors(images[val].unsqueeze(1), labels[val]),
            test=ImageTensors(test_images.unsqueeze(1), test_labels),
        )

    def _folders(self) -> Iterator[Path]:
        if self.root is not None:
            yield from (self.root, self.root / "FashionMNIST" / "raw")
        yield from (DEBIAN_ROOT, DOWNLOAD_ROOT / "fashion-mnist", DOWNLOAD_ROOT / "FashionMNIST" / "raw")

    def _find(self) -> Path | None:
        names = [name for pair in FILES.values() for name in pair]
        return next((f for f in self._folders() if all(_file(f, name).exists() for name in names)), None)

    def _download(self) -> Path:
        folders = ", ".join(map(str, self._folders()))
        looked = f"Fashion-MNIST ({FILES['train'][0]}[.gz] and three more) is in none of {folders}"
        remedy = "`make data` gets it from Debian; or name its folder by the task's root="
        if not self.download:
            raise DataError(f"{looked}. {remedy}; or let it be downloaded by the task's download=true")
        try:
            FashionMNIST(self.root or DOWNLOAD_ROOT, download=True)
        except (URLError, RuntimeError, OSError) as exc:
            raise DataError(f"{looked}, and downloading it failed: {' '.join(str(exc).split())} — {remedy}") from exc
        return self._target()

    def _target(self) -> Path:
        return (self.root or DOWNLOAD_ROOT) / "FashionMNIST" / "raw"


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def read_idx(path: Path) -> Tensor:
    """Read an idx file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Returns:
        uint8 tensor of the shape that the file's header states.

    Raises:
        DataError: the file is damaged, cut short or of another type.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise DataError(f"{path} is not a whole gzip file ({exc}); fetch it again") from exc
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != IDX_UINT8:
        raise DataError(f"{path} is not an idx file of unsigned bytes: it starts with {data[:4].hex(' ')}")
    header_bytes = 4 + 4 * data[3]
    if len(data) < header_bytes:
        raise DataError(f"{path}: its header is cut short, {len(data)} of {header_bytes} bytes; fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(data[4:header_bytes], dtype=">u4"))
    values = np.frombuffer(data[header_bytes:], dtype=np.uint8)
    if values.size != prod(shape):
        raise DataError(f"{path} states the shape {shape} but holds {values.size} bytes; fetch it again")
    return torch.from_numpy(values.reshape(shape).copy())
