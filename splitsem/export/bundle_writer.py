"""Writes a bundle: the folder or .zip that ``splitsem-device`` runs; see ``splitsem_device.bundle``."""

import io
import platform
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from splitsem.codecs.codec import Codec
from splitsem.export import onnx_file
from splitsem.files import write_whole
from splitsem.splitting.cut import Cut
from splitsem.tasks.answer import AnswerCoder
from splitsem.trees import call
from splitsem_device.bundle import FACTS, BundleFacts, FileFacts, Input, Samples
from splitsem_device.framing import Framing
from splitsem_device.onnx_half import OnnxHalf
from splitsem_device.plan import Plan

_PACKAGES = ("splitsem", "splitsem-device", "torch", "onnx", "onnxruntime", "numpy")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal bundles are equal files


class Parts(NamedTuple):
    """What is cut, coded and answered.

    Attributes:
        cut: with the tail that the server runs.
        codec: makes and reads the payloads, in eval mode.
        framing: of the exported file's outputs.
        answer: makes the answers; None: the results stay on the server.
    """

    cut: Cut
    codec: Codec
    framing: Framing
    answer: AnswerCoder | None

    def plan(self, weights: str, label: str, granularity: str) -> Plan:
        """What a device agrees on with the server."""
        answer = "" if self.answer is None else self.answer.name
        return Plan(self.cut.fingerprint, weights, self.cut.point.name, granularity, "float32", label, answer)

    def inputs(self) -> list[Input]:
        """The head's inputs."""
        names = onnx_file.input_names(self.cut)
        return [
            Input(name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in zip(names, self.cut.example, strict=True)
        ]


@torch.no_grad()
def samples(parts: Parts, heads: Mapping[str, OnnxHalf], inputs: Sequence[Any]) -> tuple[Samples, dict[str, bytes]]:
    """Some samples with what they must become, and the files that hold them.

    Args:
        parts: what is cut.
        heads: each format's file.
        inputs: samples as a data set gives them, each a batch of one.
    """
    names, cut, framing = onnx_file.input_names(parts.cut), parts.cut, parts.framing
    arrays = [onnx_file.named(names, x) for x in inputs]
    files = {"samples.npz": _npz({name: np.concatenate([one[name] for one in arrays]) for name in names})}
    payloads = {"torch": [parts.codec.encode(call(cut.head, x)) for x in inputs]}
    for form, head in heads.items():
        made = [head(one) for one in arrays]
        payloads[form] = [framing.payload(*outputs) for outputs in made]
        stacked = zip(framing.outputs, zip(*made, strict=True), strict=True)
        files[f"outputs.{form}.npz"] = _npz({name: np.stack(outputs) for name, outputs in stacked})
    answers = []
    if parts.answer is not None:
        for payload in payloads["float32"]:
            output = cut.tail(*cut.received(parts.codec.decode(payload)))
            answers.append(parts.answer.encode(output))
        files["answers.bin"] = b"".join(answers)
    files |= {f"payloads.{form}.bin": b"".join(made) for form, made in payloads.items()}
    facts = Samples(
        "samples.npz",
        {form: f"payloads.{form}.bin" for form in payloads},
        {form: [len(payload) for payload in made] for form, made in payloads.items()},
        {form: f"outputs.{form}.npz" for form in heads},
        "answers.bin" if answers else "",
        [len(answer) for answer in answers],
    )
    return facts, files


def versions() -> dict[str, str]:
    """Versions of the packages that make a bundle, and of Python."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            found[name] = "not installed"
    return found


def write(facts: BundleFacts, contents: Mapping[str, bytes], path: Path, archive: str) -> Path:
    """Write everything.

    Args:
        facts: what ``bundle.json`` says; its ``files`` are filled in here.
        contents: of the other files by name, without the README.
        path: of the bundle, without an ending.
        archive: ``folder`` or ``zip``.

    Returns:
        Where the bundle is.
    """
    contents = {**contents, "README.md": readme(facts).encode()}
    files = {name: FileFacts.of(content) for name, content in contents.items()}
    text = BundleFacts(**{**vars(facts), "files": files}).to_json().encode()
    whole = {FACTS: text, **contents}
    if archive == "folder":
        for name, content in whole.items():
            write_whole(content, path / name)
        return path
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in whole.items():
            opened.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    path = path.with_name(f"{path.name}.zip")
    write_whole(made.getvalue(), path)
    return path


def readme(facts: BundleFacts) -> str:
    """Ten lines for whoever finds the bundle on a board."""
    inputs = ", ".join(f"{one.name} {one.dtype} {tuple(one.shape)}" for one in facts.inputs)
    return f"""# A bundle of splitsem: cut at {facts.plan.point}, payloads by {facts.plan.codec}

    python3 -m venv device && device/bin/pip install splitsem_device-*.whl   # numpy, onnxruntime, gRPC; no torch
    device/bin/splitsem-device check BUNDLE                                  # the same bytes here?
    device/bin/splitsem-device run BUNDLE --target HOST:PORT --ca ca.pem     # the server: splitsem workflow=serve
    device/bin/splitsem-device profile BUNDLE                                # times, for hardware.edge.lut=

Input: {inputs}. Heads: {", ".join(facts.heads)}. Whole network for lost links: {facts.whole or "none"}.
`--source` takes a folder of pictures, a video, a camera, .npy, .npz or `-` (standard input).
Licence: {facts.licence}
"""


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    made = io.BytesIO()
    np.savez_compressed(made, **arrays)  # type: ignore[arg-type] # mypy takes the arrays for allow_pickle
    return made.getvalue()
