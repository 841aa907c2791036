"""The device process without torch: memory, time to the first frame and size; and whether its bytes are torch's.

    python -m splitsem.data get efficientnet-lite0 photographs
    python benchmarks/device_process.py [process] [bytes]     # both parts; minutes a cut: --points features.6

``process``: a virtual environment with the wheel of splitsem-device and its dependencies (from the package index), a
bundle of MobileNetV3-large at 224 with random weights, ``quant8`` with the context coder, cut at ``features.6``, and
``workflow=serve`` in another process. Bars: resident memory ≤ 120 MB, first payload ≤ 1 s after the process starts,
≤ 150 MB installed without onnxruntime and what only it asks for.

``bytes``: crops of photographs, each through torch and through onnxruntime, of MobileNetV3-large (random weights, batch
statistics of the crops) and EfficientNet-Lite0 with ImageNet weights: (a) the same features through both encoders, (b)
through the head in onnxruntime. Bar: ≥ 99 % of the payloads identical, the rest within one quantiser step, and the
agreement with the unsplit network within 0.1 points.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness.ends import ROOT, running_server
from harness.measured_rows import record
from splitsem.codecs.quantise import Affine, Quantise, affine_for, choose_range, to_integers
from splitsem.codecs.tensorwise import Identity
from splitsem.export import onnx_file
from splitsem.export.coders import coder
from splitsem.models.efficientnet_lite import efficientnet_lite0
from splitsem.models.ready_made import torchvision_model
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.photos import Photos
from splitsem.tasks.pictures import read_picture
from splitsem_device.onnx_half import OnnxHalf

SHAPE, CLASSES = (3, 224, 224), (1000,)
NETWORK = ["task=photos", "model=torchvision", "model.name=mobilenet_v3_large", "codec=quant8", "codec.entropy=context"]
HERE = ["device=cpu", "device.num_threads=1", "tracking=none", "trainer.max_epochs=0"]
ONLY_ONNXRUNTIMES = ("onnxruntime", "flatbuffers", "coloredlogs", "humanfriendly", "mpmath", "sympy")  # and pip's own
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # nothing of the checkout
PIPS = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")


def crops(num: int) -> Iterator[Tensor]:
    """Squares of the photographs at random places and of random sizes, ``(1, 3, 224, 224)`` in [0, 1]."""
    paths = [path for part in Photos().photographs() for path in part]
    pictures, rng = [read_picture(path) for path in paths], np.random.default_rng(0)
    for k in range(num):
        picture = pictures[k % len(pictures)]
        side = int(min(picture.size) * rng.uniform(0.3, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
        made = picture.resize(SHAPE[1:], box=(left, top, left + side, top + side))
        yield torch.from_numpy(np.array(made)).permute(2, 0, 1)[None].float() / 255


class Coder(nn.Module):
    """The encoder alone, for a file that takes features."""

    def __init__(self, codec: Quantise) -> None:
        super().__init__()
        self.coder = coder(codec)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """The coder's outputs."""
        return self.coder((z,))


def as_onnx(program: torch.export.ExportedProgram, outputs: list[str]) -> OnnxHalf:
    """The exported program in onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.onnx"
        onnx_file.write(program, path, outputs)
        return onnx_file.read(path)


class Found(NamedTuple):
    """What one crop gave."""

    same_encoder: bool
    same_head: bool
    same_short: bool
    num_away: int
    furthest: int
    scale_error: float
    feature_error: float
    agrees: tuple[bool, bool]


def short_scale(z: Tensor, codec: Quantise) -> tuple[Tensor, Affine]:
    """The integers where the scale is rounded up to 16 bits before they are made."""
    x = z.reshape(1, -1)
    affine = affine_for(choose_range(x, codec.bit_width, "minmax", 100.0), codec.bit_width, short_scale=True)
    return to_integers(x, affine, codec.bit_width), affine


@torch.inference_mode()
def compared(cut: Cut, network: nn.Module, samples: Iterator[Tensor]) -> list[Found]:
    """Each crop through torch and through onnxruntime."""
    codec = Quantise(8, entropy="context").eval()
    (z_like,) = cut.head(*cut.example)
    program, framing = onnx_file.export(cut, codec)
    head = as_onnx(program, framing.outputs)
    raw_program, raw_framing = onnx_file.export(cut, Identity().eval())
    raw_head = as_onnx(raw_program, raw_framing.outputs)
    encoder = as_onnx(torch.export.export(Coder(codec).eval(), (z_like.clone(),), strict=False), framing.outputs)
    found = []
    for x in samples:
        (z,) = cut.head(x)
        expected, inputs = codec.encode((z,)), {"x": x.numpy()}
        outputs = head(inputs)
        payload = framing.payload(*outputs)
        z_onnx = torch.from_numpy(raw_head(inputs)[0])
        ours, theirs = codec.integers(z), torch.from_numpy(outputs[0].astype(np.int32))
        away = (ours[0].reshape(-1).int() - theirs.reshape(-1)).abs()
        short, short_onnx = short_scale(z, codec), short_scale(z_onnx, codec)
        own = int(network(x).argmax())
        classes = [int(cut.tail(*cut.received(codec.decode(one))).argmax()) for one in (expected, payload)]
        found.append(
            Found(
                framing.payload(*encoder({"x": z.numpy()})) == expected,
                payload == expected,
                torch.equal(short[0], short_onnx[0]) and torch.equal(short[1].scale, short_onnx[1].scale),
                int((away > 0).sum()),
                int(away.max()),
                abs(float(outputs[1].reshape(-1)[0]) / float(ours[1].scale) - 1),
                float((z - z_onnx).abs().max() / z.abs().max()),
                (classes[0] == own, classes[1] == own),
            )
        )
    return found


def told(name: str, point: str, num_values: int, found: list[Found]) -> None:
    """Print what was found of one network."""
    num = len(found)

    def share(index: int) -> str:
        return f"{100 * sum(bool(one[index]) for one in found) / num:.1f} %"

    away = sum(one.num_away for one in found)
    agree = [100 * sum(one.agrees[k] for one in found) / num for k in (0, 1)]
    print(f"{name}, cut at {point} ({num_values:,} values), {num} crops")
    print(f"  (a) same features, either encoder: {share(0)} of the payloads identical")
    print(f"  (b) head in onnxruntime: {share(1)} identical; {away:,} of {num * num_values:,} integers differ")
    print(f"      ({away / num:.2f} a payload), by at most {max(one.furthest for one in found)}")
    moved = 100 * sum(one.scale_error > 0 for one in found) / num
    error = statistics.median(one.feature_error for one in found)
    print(
        f"      scale: another in {moved:.1f} % of the payloads, by {max(one.scale_error for one in found):.1e} at most"
    )
    print(f"      features: a median of {error:.1e} of the largest one apart")
    print(f"      with scales in 16 bits, {share(2)} would be identical")
    print(f"  agreement with the unsplit network: torch {agree[0]:.1f} %, onnxruntime {agree[1]:.1f} %")


def of_bytes(num: int, chosen: list[str]) -> None:
    """Part ``bytes``, at the chosen points."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mobilenet = torchvision_model("mobilenet_v3_large", SHAPE, CLASSES)
    with torch.no_grad():
        mobilenet.train()(torch.cat(list(crops(32))))  # batch norms as after a training: else features fade to nothing
    lite = efficientnet_lite0(SHAPE, CLASSES)
    for name, network, points in (
        ("MobileNetV3-large", mobilenet, ("features.6", "features.12", "avgpool")),
        ("EfficientNet-Lite0", lite, ("blocks.3", "global_pool")),
    ):
        graph = SplitGraph(network.eval(), SHAPE)
        for point in (point for point in points if point in chosen or not chosen):
            cut = graph.cut(point)
            told(name, point, prod(cut.point.tensors[0].shape), compared(cut, network, crops(num)))


def of_process(runs: int) -> None:
    """Part ``process``."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        python = environment(folder / "venv")
        shared = [*NETWORK, *HERE, f"cache_dir={folder / 'cache'}", "split.point=features.6"]
        make = [sys.executable, str(ROOT / "run.py"), "workflow=bundle", *shared, f"hydra.run.dir={folder / 'run'}"]
        subprocess.run([*make, "workflow.num_samples=4", "workflow.formats=[float32]"], check=True, cwd=ROOT)
        bundle = folder / "run" / "bundle.zip"
        print(f"bundle {bundle.stat().st_size / 1e6:.1f} MB")
        started_s = statistics.median(timed([str(python), "-c", "pass"]) for _ in range(runs))
        with running_server(folder / "serve", ["transport=grpc", *shared]) as address:
            found = []
            for k in range(runs):
                report = folder / f"{k}.json"
                command = [str(python), "-m", "splitsem_device", "run", str(bundle), "--target", address, "--quiet"]
                subprocess.run([*command, "--json", str(report)], check=True, capture_output=True, env=ALONE)
                found.append(json.loads(report.read_text()))
        first = [started_s + one["first_payload_s"] for one in found]
        print(f"resident memory {max(one['rss_bytes'] for one in found) / 1e6:.0f} MB at most (bar 120)")
        print(f"first payload {min(first):.2f}…{max(first):.2f} s after the start (bar 1)")
        most_mb = max(one["rss_bytes"] for one in found) / 1e6
        record("device process without torch: memory", f"{most_mb:.0f} MB", "≤ 120 MB", most_mb > 120)
        told = f"{min(first):.2f} … {max(first):.2f} s"
        record("device process without torch: first payload", told, "≤ 1 s", max(first) > 1)
        stages = found[-1]["stages"]
        print(", ".join(f"{name} {1e3 * times['p50']:.1f} ms" for name, times in stages.items()))


def environment(path: Path) -> Path:
    """A virtual environment with the device's wheel only; prints how large it is. Gives its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", path], check=True)
    python = path / "bin" / "python"
    wheels = path.parent / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", wheels, str(ROOT / "device")], check=True)
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", *map(str, wheels.iterdir())]
    subprocess.run(install, check=True, env=ALONE)
    (packages,) = (path / "lib").glob("python*/site-packages")
    sizes = {entry.name: num_bytes(entry) for entry in packages.iterdir()}

    def is_of(name: str, owners: tuple[str, ...]) -> bool:
        return any(name == owner or name.startswith((f"{owner}-", f"{owner}.")) for owner in owners)

    onnxruntimes = sum(size for name, size in sizes.items() if is_of(name, ONLY_ONNXRUNTIMES))
    rest = sum(size for name, size in sizes.items() if not is_of(name, (*ONLY_ONNXRUNTIMES, *PIPS)))
    largest = sorted(sizes.items(), key=lambda pair: -pair[1])[:6]
    print(f"installed {rest / 1e6:.0f} MB (bar 150), and onnxruntime {onnxruntimes / 1e6:.0f} MB; largest: ", end="")
    print(", ".join(f"{name} {size / 1e6:.0f}" for name, size in largest))
    what = "device process without torch: size without onnxruntime"
    record(what, f"{rest / 1e6:.0f} MB", "≤ 150 MB", rest > 150e6)
    torch_line = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, env=ALONE)
    print(f"torch there: {torch_line.stderr.splitlines()[-1]}")
    return python


def num_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def timed(command: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, env=ALONE)
    return time.perf_counter() - began


def main() -> None:
    """Print the figures of the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["process", "bytes", []], default=["process", "bytes"])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--points", nargs="*", default=[], help="these only, e.g. features.6")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if "process" in options.parts:
        of_process(options.runs)
    if "bytes" in options.parts:
        of_bytes(options.samples, options.points)


if __name__ == "__main__":
    main()
