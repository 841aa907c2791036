"""Pictures with boxes in COCO's layout: folders of pictures, and JSON files with images, annotations and categories."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from splitsem.errors import DataError
from splitsem.json_files import Size, decode, read_text
from splitsem.tasks.detection.letterbox import fitted, letterbox
from splitsem.tasks.pictures import picture_shape, read_picture
from splitsem.tasks.task import Splits

log = logging.getLogger(__name__)

_MOST_OVERHANG = 1.0  # pixels: COCO's own boxes end up to a fraction of a pixel outside
_WHAT = "annotations file"


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: Size
    height: Size


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class Annotated(NamedTuple):
    """What a file annotates.

    Attributes:
        class_names: by the categories' numbers, rising.
        pictures: file name, width and height of each picture.
        rows: ``(n, 6)`` float32, picture by picture: corners in pixels, is_crowd, class.
        starts: ``(pictures + 1,)``: those of picture i are ``rows[starts[i]:starts[i + 1]]``.
    """

    class_names: tuple[str, ...]
    pictures: list[tuple[str, int, int]]
    rows: NDArray[np.float32]
    starts: NDArray[np.int64]

    @property
    def used_names(self) -> frozenset[str]:
        """The classes that some box is of."""
        return frozenset(self.class_names[int(number)] for number in np.unique(self.rows[:, 5]))


class CocoFolder:
    """A source in COCO's layout; see ``splitsem.tasks.detection.detection.BoxSource``.

    Pictures without a box are samples, too. What is found in a crowd (``iscrowd``) counts neither as right nor as
    wrong. A picture's name decides whether it is held out, so that others may be added.

    Args:
        images: folder that the annotations' file names are in; or one for each of ``train``, ``val``, ``test``.
        annotations: a JSON file; or one for each of ``train``, ``val``, ``test``. What has none is held out of train.
        val_fraction: share of the pictures of train that is held out for val.
        test_fraction: share of the pictures of train that is held out for test.
        seed: which pictures are held out.
        clip: whether boxes may reach outside their pictures, and are cut at the edge.

    Raises:
        ValueError: an argument out of range.
    """

    size: tuple[int, int] = (416, 416)
    is_agreement: ClassVar[bool] = False

    def __init__(
        self,
        images: str | Mapping[str, str],
        annotations: str | Mapping[str, str],
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
        clip: bool = False,
    ) -> None:
        self._files = {"train": annotations} if isinstance(annotations, str) else dict(annotations)
        self._folders = dict.fromkeys(self._files, images) if isinstance(images, str) else dict(images)
        for name, given in (("annotations", self._files), ("images", self._folders)):
            if "train" not in given or not {*given} <= {*Splits._fields} or {*given} != {*self._files}:
                raise ValueError(
                    f"{name} must be one path, or one for train and perhaps for val and test, "
                    f"as annotations and images alike; got {given}"
                )
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise ValueError(
                "val_fraction and test_fraction must be above 0, and below 1 together, got "
                f"{val_fraction} and {test_fraction}"
            )
        self._held_out = {"val": val_fraction, "test": test_fraction}
        self._seed, self._clip = seed, clip

    def data_paths(self) -> Sequence[Path]:
        """The annotation files and the folders of pictures."""
        return [Path(path) for path in dict.fromkeys([*self._files.values(), *self._folders.values()])]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The categories of train. Raises DataError."""
        return self._train.class_names

    @property
    def used_names(self) -> frozenset[str]:
        """The categories that train, val or test have a box of. Raises DataError."""
        others = (self._other(name) for name in self._files if name != "train")
        return self._train.used_names.union(*(found.used_names for found in others))

    @cached_property
    def _train(self) -> Annotated:
        return read_annotations(Path(self._files["train"]), self._clip)

    def splits(self, size: tuple[int, int]) -> Splits:
        """The pictures at ``size`` (height, width). Raises DataError."""
        read = {name: self._train if name == "train" else self._other(name) for name in self._files}
        most = max(int(np.diff(found.starts).max()) for found in read.values())
        parts = {name: [*range(len(found.pictures))] for name, found in read.items()}
        shares = {name: share for name, share in self._held_out.items() if name not in read}
        if shares:
            drawn = self._drawn()
            below = 0.0
            for name, share in shares.items():
                parts[name] = [i for i, place in enumerate(drawn) if below <= place < below + share]
                below += share
            parts["train"] = [i for i, place in enumerate(drawn) if place >= below]
        if empty := [name for name, part in parts.items() if not part]:
            raise DataError(
                f"{self._files['train']} has {len(self._train.pictures)} pictures, none of which becomes {empty[0]}: "
                f"give task.source.annotations a file for {empty[0]}, or change task.source.val_fraction, "
                "task.source.test_fraction or task.source.seed"
            )
        made = {}
        for name, part in parts.items():
            origin = name if name in read else "train"
            folder = Path(self._folders[origin])
            _must_be_there([folder / read[origin].pictures[i][0] for i in part], Path(self._files[origin]))
            made[name] = CocoPictures(folder, read[origin], part, size, most)
        return Splits(**made)

    def _other(self, name: str) -> Annotated:
        """The annotations of val or test, with the class numbers of train."""
        found = read_annotations(Path(self._files[name]), self._clip)
        names = self._train.class_names
        if unknown := sorted(found.used_names - {*names}):
            raise DataError(
                f"{self._files[name]} has the category {unknown[0]!r}, which {self._files['train']} has not: "
                "their categories must have the same names"
            )
        numbers = np.array([names.index(one) if one in names else -1 for one in found.class_names], np.float32)
        rows = found.rows.copy()
        rows[:, 5] = numbers[rows[:, 5].astype(int)]
        return found._replace(class_names=names, rows=rows)

    def _drawn(self) -> list[float]:
        """A number from 0 to 1 for each picture of train, by its name."""
        return [zlib.crc32(f"{self._seed}/{name}".encode()) / 2**32 for name, _, _ in self._train.pictures]


class CocoPictures(Dataset[tuple[Tensor, Tensor]]):
    """Pictures that are read when they are asked for.

    Args:
        folder: where they are.
        annotated: all of the file's pictures, of which
        indices: are these samples.
        size: height and width of a sample.
        most: rows of the targets.
    """

    def __init__(
        self, folder: Path, annotated: Annotated, indices: Sequence[int], size: tuple[int, int], most: int
    ) -> None:
        self._folder, self._annotated, self.indices, self._size, self._most = folder, annotated, indices, size, most

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Picture ``(3, *size)`` float32 in [0, 1], and targets ``(most, 6)``. Raises DataError."""
        number = self.indices[index]
        name, width, height = self._annotated.pictures[number]
        path = self._folder / name
        stored = picture_shape(path)[:2]
        if stored != (width, height):
            raise DataError(
                f"{path} is {stored[0]}x{stored[1]} pixels when it stands upright, and its annotations are for "
                f"{width}x{height}: take the picture that was annotated, or mend width and height"
            )
        at = letterbox(width, height, self._size)
        picture = fitted(read_picture(path, at_least=(at.width, at.height)), self._size)
        rows = self._annotated.rows[slice(*self._annotated.starts[number : number + 2])]
        targets = torch.zeros(self._most, 6)
        targets[:, 5] = -1
        targets[: len(rows), :4] = torch.from_numpy(at.boxes(rows[:, :4]))
        targets[: len(rows), 4:] = torch.from_numpy(rows[:, 4:])
        return torch.from_numpy(picture) / 255, targets


def read_annotations(path: Path, clip: bool = False) -> Annotated:
    """What a JSON file in COCO's layout annotates; category numbers, which have gaps, become 0, 1, 2, ….

    Args:
        path: the file.
        clip: whether boxes may reach outside their pictures by more than a pixel, and are cut at the edge.

    Raises:
        DataError: the file is missing or damaged, has no box, names a picture or category that it does not list, or
            has a box outside its picture; the line names it.
    """
    try:
        file = decode(read_text(path, _WHAT), _File)
    except ValueError as exc:
        raise DataError(
            f"{path} is not a whole {_WHAT} in COCO's layout (images, annotations, categories): {exc}"
        ) from exc
    categories = sorted(file.categories, key=lambda one: one.id)
    numbers = {one.id: number for number, one in enumerate(categories)}
    places = {one.id: place for place, one in enumerate(file.images)}
    _must_refer(file, numbers, places, path)
    owners = np.array([places[one.image_id] for one in file.annotations])
    facts = [(*one.bbox, one.iscrowd != 0, numbers[one.category_id]) for one in file.annotations]
    order = owners.argsort(kind="stable")
    owners, rows = owners[order], np.array(facts, np.float64)[order]
    rows[:, 2:4] += rows[:, :2]
    has_area = _cut_to_pictures(rows, [file.images[owner] for owner in owners], clip, path)
    pictures = [(one.file_name, one.width, one.height) for one in file.images]
    starts = np.searchsorted(owners[has_area], np.arange(len(pictures) + 1))
    return Annotated(tuple(one.name for one in categories), pictures, rows[has_area].astype(np.float32), starts)


def _must_refer(file: _File, numbers: Mapping[int, int], places: Mapping[int, int], path: Path) -> None:
    """Raise DataError unless there are boxes, each of a picture and of a category that the file lists once."""
    if len(numbers) < len(file.categories) or len(places) < len(file.images):
        raise DataError(f"{path} gives two images or two categories the same id: each must have its own")
    names = [one.name for one in file.categories]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path} has two categories of the name {twice[0]!r}: rename one, or make them one")
    if not file.annotations:
        raise DataError(f"{path} has no boxes: its annotations are empty; give the file of the labelled pictures")
    for one in file.annotations:
        if one.image_id not in places:
            raise DataError(
                f"{path} has a box of image_id {one.image_id}, which is not among its images: list the picture there, "
                "or take its boxes out"
            )
        if one.category_id not in numbers:
            raise DataError(
                f"{path} has a box of category_id {one.category_id} in {file.images[places[one.image_id]].file_name}, "
                "which is not among its categories: list it there, or take its boxes out"
            )


def _cut_to_pictures(rows: NDArray[np.float64], images: Sequence[_Image], clip: bool, path: Path) -> NDArray[np.bool_]:
    """Cut boxes ``(n, 6)`` at their pictures' edges, in place; whether each has an area then. Raises DataError."""
    sides = np.array([(one.width, one.height) for one in images], np.float64)
    outside = np.maximum(-rows[:, :2], rows[:, 2:4] - sides).max(1)
    if not clip and outside.max() > _MOST_OVERHANG:
        worst = int(outside.argmax())
        image = images[worst]
        x, y, right, bottom = rows[worst, :4]
        raise DataError(
            f"{path}: in {image.file_name}, {image.width}x{image.height} pixels, the box x={x:g} y={y:g} "
            f"width={right - x:g} height={bottom - y:g} reaches {outside[worst]:g} pixels outside: mend it, or have "
            "all boxes cut at the edge by the source's clip=true"
        )
    rows[:, :4] = rows[:, :4].clip(0, np.hstack([sides, sides]))
    has_area = np.all(rows[:, 2:4] > rows[:, :2], axis=1)
    if not has_area.any():
        raise DataError(f"{path} has no boxes with an area; a bbox is [x, y, width, height] in pixels")
    if not has_area.all():
        first = images[int(has_area.argmin())].file_name
        log.warning("%s: %d boxes without area are left out, the first in %s", path, (~has_area).sum(), first)
    return has_area


def _must_be_there(paths: Sequence[Path], annotations: Path) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} pictures of {annotations} are missing, the first: {missing[0]}; name "
            "their folder by task.source.images, or take them out of the annotations"
        )
