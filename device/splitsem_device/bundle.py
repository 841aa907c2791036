"""Bundle: one folder or .zip with all that a device needs, written by ``workflow=bundle`` of splitsem.

``bundle.json`` says what is in it: the plan that is agreed with the server, how the head's outputs become a payload,
what comes back, and size and SHA-256 of every other file.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from splitsem_device import answer_reader, framing, picture_input
from splitsem_device.answer_reader import Reader
from splitsem_device.errors import BundleError, ConfigError
from splitsem_device.framing import Framing
from splitsem_device.peer_text import shown
from splitsem_device.picture_input import PictureInput
from splitsem_device.plan import Plan

SCHEMA = "splitsem.bundle/1"
FACTS = "bundle.json"
_MOST_FACTS_BYTES = 64 << 20


class FileFacts(NamedTuple):
    """What a file must be."""

    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "FileFacts":
        """Those of a file with this content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


class Input(NamedTuple):
    """An input of the head.

    Attributes:
        name: by which the ONNX files know it.
        shape: with the batch of one.
        dtype: numpy's name.
    """

    name: str
    shape: list[int]
    dtype: str


class Samples(NamedTuple):
    """Some of the task's samples, and what they must become; all lists are in the order of the samples.

    Attributes:
        inputs: an .npz file: each input by name, ``(num, *shape[1:])``.
        payloads: by format of the head, the file with the payloads one after the other; ``torch``: the codec's own.
        payload_bytes: by format, the size of each payload.
        outputs: by format, an .npz file with the head's outputs by name, stacked.
        answers: the file with the server's answers to the payloads of ``float32``; empty: not known.
        answer_bytes: the size of each answer.
    """

    inputs: str
    payloads: dict[str, str]
    payload_bytes: dict[str, list[int]]
    outputs: dict[str, str]
    answers: str
    answer_bytes: list[int]


@dataclass(frozen=True, kw_only=True)
class BundleFacts:
    """What ``bundle.json`` says.

    Attributes:
        plan: what is agreed with the server.
        framing: how the head's outputs become a payload.
        answer: reads the answers; None: they stay bytes.
        inputs: of the head.
        picture: how a picture becomes the input; None where samples are no pictures.
        class_names: in the order of the network's outputs; empty: classes have numbers.
        heads: by format (``float32``, ``int8``, ``float16``), the ONNX file.
        whole: the ONNX file of the whole network, for a device whose link is down; empty: there is none.
        samples: to check a device with.
        files: every other file by name.
        scores: of the files, by name of the metric.
        versions: of the packages that made it.
        licence: what to know before it is passed on.
    """

    plan: Plan
    framing: Framing
    answer: Reader | None
    inputs: list[Input]
    picture: PictureInput | None
    class_names: list[str]
    heads: dict[str, str]
    whole: str
    samples: Samples
    files: dict[str, FileFacts]
    scores: dict[str, Any]
    versions: dict[str, str]
    licence: str

    def to_json(self) -> str:
        """The text of ``bundle.json``; ``digest`` is of the text without itself."""
        card: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        card |= {"plan": asdict(self.plan), "framing": framing.to_card(self.framing)}
        card["answer"] = None if self.answer is None else answer_reader.to_card(self.answer)
        card["inputs"] = [one._asdict() for one in self.inputs]
        card["picture"] = None if self.picture is None else self.picture._asdict()
        card["samples"] = self.samples._asdict()
        card["files"] = {name: facts._asdict() for name, facts in self.files.items()}
        card = {"schema": SCHEMA, **card}
        return json.dumps({**card, "digest": _digest(card)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, source: str) -> "BundleFacts":
        """Undo ``to_json``. Raises BundleError: another version, or damaged."""
        try:
            card = json.loads(text)
        except ValueError as exc:
            raise BundleError(f"{source}: {FACTS} is damaged ({shown(exc)}); copy the bundle again") from exc
        schema = card.get("schema") if isinstance(card, dict) else None
        if schema != SCHEMA:
            raise BundleError(
                f"{source} is a bundle of schema {shown(schema)}, and this splitsem-device reads {SCHEMA}: make the "
                "bundle again with the splitsem of this version, or install its splitsem-device"
            )
        try:
            if card.pop("digest") != _digest(card):
                raise ValueError("its digest is of another content")
            del card["schema"]
            return _facts(card)
        except (KeyError, TypeError, ValueError, ConfigError) as exc:
            said = f"{exc} is missing" if isinstance(exc, KeyError) else shown(exc)
            raise BundleError(f"{source}: {FACTS} is damaged ({said}); copy the bundle again") from exc


def _digest(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


def _facts(card: dict[str, Any]) -> BundleFacts:
    if card.keys() != {field.name for field in fields(BundleFacts)}:
        raise ValueError(f"it must have {', '.join(field.name for field in fields(BundleFacts))}")
    return BundleFacts(
        **card
        | {
            "plan": Plan.from_json(json.dumps(card["plan"])),
            "framing": framing.of_card(card["framing"]),
            "answer": None if card["answer"] is None else answer_reader.of_card(card["answer"]),
            "inputs": [Input(**one) for one in card["inputs"]],
            "picture": None if card["picture"] is None else picture_input.of_card(card["picture"]),
            "samples": Samples(**card["samples"]),
            "files": {name: FileFacts(**facts) for name, facts in card["files"].items()},
        }
    )


class Bundle:
    """A bundle as it lies on the disk. Every file is checked when it is read.

    Args:
        path: the folder, or the .zip file.

    Attributes:
        facts: what ``bundle.json`` says.

    Raises:
        BundleError: it is missing, damaged, or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise BundleError(f"there is no bundle {self.path}: make one with splitsem (workflow=bundle)")
        self.facts = BundleFacts.from_json(self._content(FACTS, _MOST_FACTS_BYTES), str(self.path))

    def read(self, name: str) -> bytes:
        """The content of a file. Raises BundleError where it is missing or is not what ``bundle.json`` says."""
        facts = self.facts.files[name]
        content = self._content(name, facts.num_bytes)
        if FileFacts.of(content) != facts:
            raise BundleError(
                f"{self.path}: {name} is damaged: expected {facts.num_bytes:,} bytes of SHA-256 {facts.sha256[:12]}…, "
                f"got {len(content):,} of {FileFacts.of(content).sha256[:12]}…; copy the bundle again"
            )
        return content

    def head(self, name: str) -> bytes:
        """The ONNX file of the head in one format. Raises BundleError where the bundle lacks it."""
        if name not in self.facts.heads:
            raise BundleError(f"{self.path} has no head in {name}, only in {', '.join(self.facts.heads)}")
        return self.read(self.facts.heads[name])

    def pieces(self, name: str, sizes: list[int]) -> list[bytes]:
        """A file that holds several things one after the other, taken apart. Raises BundleError."""
        content = self.read(name)
        if sum(sizes) != len(content):
            raise BundleError(f"{self.path}: {name} has {len(content)} bytes, and {FACTS} says {sum(sizes)}")
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        return [content[end - size : end] for end, size in zip(ends, sizes, strict=True)]

    def _content(self, name: str, most_bytes: int) -> bytes:
        """At most one byte more than ``most_bytes``: whatever the file has become, no more memory is taken for it."""
        try:
            if self.path.is_dir():
                with (self.path / name).open("rb") as file:
                    return file.read(most_bytes + 1)
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as member:
                return member.read(most_bytes + 1)
        except KeyError as exc:
            raise BundleError(f"{self.path} has no file {name}; copy the bundle again") from exc
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as exc:
            raise BundleError(
                f"{self.path}: {name} cannot be read, the archive is damaged ({shown(exc)}); copy the bundle again"
            ) from exc
        except FileNotFoundError as exc:
            raise BundleError(f"{self.path} has no file {name}; copy the bundle again") from exc
        except OSError as exc:
            raise BundleError(f"cannot read {name} of {self.path}: {exc.strerror or exc}") from exc
