"""Texts: any texts to classify, as bytes; from one folder a class, or from a CSV file."""

import csv
import io
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from splitsem.errors import DataError
from splitsem.tasks.classification import ClassificationTask, hold_out
from splitsem.tasks.task import Splits

log = logging.getLogger(__name__)

PADDING, START, FIRST_BYTE = 0, 1, 2
VOCABULARY_SIZE = FIRST_BYTE + 256
"""Tokens: the padding, the start of each text, and the 256 bytes of UTF-8; nothing is learned or downloaded."""

_LAYOUT = "root/<class>/*.txt, a text a file; or a CSV file with the columns text and label"


class Texts(ClassificationTask):
    """One label per text; the score is top-1 accuracy. 60 % train, 20 % val, 20 % test, each class in proportion.

    A sample is ``{"input_ids": …, "attention_mask": …}``, int32 and bool, both ``(sequence_length,)``: a start token,
    then the text's first bytes, then padding, which the mask leaves out.

    Args:
        root: a folder with one folder of ``.txt`` files a class, or a CSV file with the columns ``text`` and ``label``.
        sequence_length: tokens of a sample; what is longer is cut off.
        seed: which texts are held out for val and test.

    Raises:
        DataError: the root is missing or holds one class only; later, fewer than three different texts of a class.
        ValueError: ``sequence_length`` is below 2.
    """

    is_image = False

    def __init__(self, root: str, sequence_length: int = 128, seed: int = 0) -> None:
        if sequence_length < 2:
            raise ValueError(f"sequence_length must be at least 2 tokens, got {sequence_length}")
        self.root, self.sequence_length, self.seed = Path(root), sequence_length, seed
        names = self._names()
        if len(names) < 2:
            raise DataError(f"{self.root} must hold texts of two or more classes, got {names}. Layout: {_LAYOUT}")
        super().__init__(class_names=names, input_shape=())
        self.input_bytes = sequence_length - 1  # as plain text, cut off alike

    def example(self) -> dict[str, Tensor]:
        """A batch of one text: ``input_ids`` and ``attention_mask``, ``(1, sequence_length)``."""
        return {
            name: tokens.unsqueeze(0)
            for name, tokens in TokenTexts(["example"], [0], self.sequence_length)[0][0].items()
        }

    def model_facts(self) -> dict[str, Any]:
        """See Task; also the tokens' kinds and number."""
        return super().model_facts() | {
            "num_classes": len(self.class_names),
            "vocabulary_size": VOCABULARY_SIZE,
            "sequence_length": self.sequence_length,
        }

    def data_paths(self) -> Sequence[Path]:
        """The folder or the file."""
        return (self.root,)

    def _names(self) -> list[str]:
        """The classes, in order."""
        if not self.root.exists():
            raise DataError(f"root={self.root} does not exist; it must be {_LAYOUT}")
        return sorted(_folders(self.root) if self.root.is_dir() else _of_csv(self.root))

    def _read(self, name: str) -> Sequence[str]:
        """The texts of a class."""
        if not self.root.is_dir():
            return _of_csv(self.root)[name]
        return [decoded(path.read_bytes(), path) for path in sorted((self.root / name).glob("*.txt"))]

    def _load(self) -> Splits:
        # Each once, as far as a sample holds it, without the empty ones, so that none is in two splits.
        kept = [self._different(name) for name in self.class_names]
        num_classes = Counter(cut for each in kept for cut in each)
        if ambiguous := sum(count > 1 for count in num_classes.values()):
            log.warning("%s: %d texts stand in two or more classes and are left out", self.root, ambiguous)
        classes = [[text for cut, text in each.items() if num_classes[cut] == 1] for each in kept]
        few = [f"{name} has {len(each)}" for name, each in zip(self.class_names, classes, strict=True) if len(each) < 3]
        if few:
            raise DataError(
                f"{self.root} must hold at least 3 different texts of each class, but {few[0]} that differ in their "
                f"first {self.sequence_length - 1} bytes and stand in no other class"
            )
        texts = [text for each in classes for text in each]
        labels = torch.tensor([number for number, each in enumerate(classes) for _ in each])
        rest, test = hold_out(labels, fraction=0.2, seed=self.seed)
        train, val = (rest[part] for part in hold_out(labels[rest], fraction=0.25, seed=self.seed))
        return Splits(
            *(
                TokenTexts([texts[i] for i in part.tolist()], labels[part].tolist(), self.sequence_length)
                for part in (train, val, test)
            )
        )

    def _different(self, name: str) -> dict[bytes, str]:
        """The texts of a class by the bytes that a sample holds of them."""
        found: dict[bytes, str] = {}
        for text in map(str.strip, self._read(name)):
            if text:
                found.setdefault(text.encode()[: self.sequence_length - 1], text)
        return found


class TokenTexts(Dataset[tuple[dict[str, Tensor], int]]):
    """Texts as tokens.

    Args:
        texts: any texts.
        labels: the number of each text's class.
        sequence_length: tokens of a sample.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[int], sequence_length: int) -> None:
        self.texts, self.labels, self._length = texts, list(labels), sequence_length

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        """Text number ``index``: ``input_ids`` int32 and ``attention_mask`` bool, ``(sequence_length,)``; its class."""
        found = self.texts[index].encode()[: self._length - 1]
        ids = torch.full((self._length,), PADDING, dtype=torch.int32)
        ids[: len(found) + 1] = torch.tensor([START, *(FIRST_BYTE + byte for byte in found)], dtype=torch.int32)
        return {"input_ids": ids, "attention_mask": ids != PADDING}, self.labels[index]


def _folders(root: Path) -> list[str]:
    names = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    empty = [name for name in names if not any((root / name).glob("*.txt"))]
    if empty:
        raise DataError(f"{root / empty[0]} has no .txt files; task.root must be {_LAYOUT}")
    return names


def _of_csv(path: Path) -> dict[str, list[str]]:
    text = decoded(path.read_bytes(), path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 131,072 characters by default
    rows: Any = csv.DictReader(io.StringIO(text, newline=""))  # lines end as CSV's do, not at U+2028
    try:
        return _by_label(rows, path)
    except csv.Error as exc:
        raise DataError(f"{path}, line {rows.line_num}: {exc}; write the file as CSV again") from exc


def _by_label(rows: Any, path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if not {"text", "label"} <= set(rows.fieldnames or ()):
        raise DataError(f"{path} must have the columns text and label, got {', '.join(rows.fieldnames or ['none'])}")
    for row in rows:
        label = (row["label"] or "").strip()
        if not label or row["text"] is None:
            raise DataError(f"{path}, line {rows.line_num}: text and label must be given")
        found.setdefault(label, []).append(row["text"])
    return found


def decoded(content: bytes, path: Path) -> str:
    """The text of a file. Raises DataError unless it is in UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{path} must be text in UTF-8, got byte {content[exc.start]:#04x} at {exc.start}") from exc
