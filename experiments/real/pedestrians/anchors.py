"""YOLOv3-tiny on a real film: bytes a frame against agreement, of pictures, of features, and of the field's anchors.

python -m splitsem.data get yolov3-tiny pedestrians
python experiments/real/pedestrians/anchors.py [--frames 100] [--first 636] [--cuts pool5 pool7 conv8]

Agreement is the mean average precision 50–95 against the unsplit network's own detections above a score of 0.25.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from curves import read_rows, write_curves
from sequences import GREY, Coded, Picture, as_files, as_h265, frames
from tiles import Tiles
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from splitsem.codecs.codec import Codec
from splitsem.codecs.picture import Jpeg, Webp
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.topk import TopK
from splitsem.data import path
from splitsem.detections import unpack
from splitsem.models.detection.darknet import darknet_detector
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph

SIZE = 416
TARGETS_ABOVE = 0.25
BATCH = 8
QUALITIES = (5, 10, 20, 40, 60, 80, 95)
RATE_FACTORS = (44, 39, 34, 29, 24, 18, 12)
TILE_FACTORS = (36, 30, 25, 20, 14, 8)
NUM_EXAMPLES = 8  # frames from the start of the film, from which the tiles' range is taken


class Scored:
    """The unsplit network's own detections as targets, and what other detections agree with them."""

    def __init__(self, detections: Sequence[Tensor]) -> None:
        boxes = [next(unpack(each[None])) for each in detections]
        kept = [b.scores > TARGETS_ABOVE for b in boxes]
        self._targets = [{"boxes": b.corners[k], "labels": b.classes[k]} for b, k in zip(boxes, kept, strict=True)]
        self.num_targets = sum(len(target["labels"]) for target in self._targets)

    def of(self, detections: Sequence[Tensor]) -> dict[str, float]:
        """Agreement; at an overlap of 0.5; and with every box, not every class, of the same weight."""
        metric = MeanAveragePrecision(backend="pycocotools", class_metrics=True)
        boxes = [next(unpack(each[None])) for each in detections]
        found = [{"boxes": b.corners, "scores": b.scores, "labels": b.classes} for b in boxes]
        metric.update(found, self._targets)
        value = metric.compute()
        labels = torch.cat([target["labels"] for target in self._targets])
        wanted = [(precision, (labels == each).sum()) for each, precision in zip(*_by_class(value), strict=True)]
        return {
            "agreement": float(value["map"]),
            "agreement_50": float(value["map_50"]),
            "agreement_by_box": float(sum(precision * num for precision, num in wanted) / len(labels)),
        }


def _by_class(value: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Numbers of the classes and their average precision; 0-d where there is one class alone."""
    return value["classes"].reshape(-1), value["map_per_class"].reshape(-1)


def as_input(picture: Picture) -> Tensor:
    """``(3, SIZE, SIZE)`` in [0, 1], grey above and below; who runs the network adds the grey, so that none is sent."""
    x = torch.full((3, SIZE, SIZE), GREY / 255)
    top = (SIZE - picture.shape[0]) // 2
    x[:, top : top + picture.shape[0]] = torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255
    return x


def in_batches(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What ``function`` gives for each of the inputs, each without a batch."""
    starts = range(0, len(inputs), BATCH)
    return [y for start in starts for y in function(torch.stack(list(inputs[start : start + BATCH])))]


def feature_codecs() -> Iterator[tuple[str, Any, Codec]]:
    """Name, knob and codec."""
    for bits in (2, 3, 4, 5, 6, 8):
        yield "quant", bits, Quantise(bits)
    for bits in (2, 3, 4, 6):
        yield "quant, by channel", bits, Quantise(bits, granularity="channel")
    for keep in (0.05, 0.1, 0.2, 0.4):
        yield "topk_quant, 6 bit", keep, TopK(keep, "quantised", 6)


def coded_pictures() -> Iterator[tuple[str, Any, Callable[[Sequence[Picture]], Coded]]]:
    """Name, knob and coder of the frames themselves."""
    for quality in QUALITIES:
        yield "JPEG", quality, partial(as_files, codec=Jpeg(quality))
        yield "WebP", quality, partial(as_files, codec=Webp(quality))
    for crf in RATE_FACTORS:
        yield "H.265 intra", crf, as_h265(crf, is_intra=True)
        yield "H.265 inter", crf, as_h265(crf, is_intra=False)


def through_codec(codec: Codec, features: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, float]]:
    """What a fresh reading of the payloads gives, a frame at a time."""
    codec.read(codec.payload((features[0],)))  # compiles what coders compile on first use
    start = time.perf_counter()
    payloads = [codec.payload((z,)) for z in features]
    middle = time.perf_counter()
    received = [codec.read(payload)[0] for payload in payloads]
    return received, _cost(len(features), sum(map(len, payloads)), middle - start, time.perf_counter() - middle)


def through_tiles(coder: Callable[[Sequence[Picture]], Coded], tiles: Tiles, features: Sequence[Tensor]) -> Any:
    """The same with the channels as one picture."""
    coded = coder([tiles.picture(z) for z in features])
    cost = _cost(len(features), coded.num_bytes, coded.encode_s, coded.decode_s)
    return [tiles.feature(picture) for picture in coded.pictures], cost


def _cost(count: int, num_bytes: int, encode_s: float, decode_s: float) -> dict[str, float]:
    return {
        "bytes_per_frame": num_bytes / count,
        "encode_ms": 1000 * encode_s / count,
        "decode_ms": 1000 * decode_s / count,
    }


def _finished(cut: Cut, decoded: Tensor) -> Tensor:
    """What the network makes of decoded features."""
    return cut.tail(*cut.received([decoded]))


def measured(film: Path, first: int, count: int, cuts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each setting."""
    model = darknet_detector((3, SIZE, SIZE), (100, 6), masks=[[3, 4, 5], [1, 2, 3]])
    pictures = list(frames(film, first, count, SIZE))
    inputs = [as_input(picture) for picture in pictures]
    scored = Scored(in_batches(model, inputs))
    sys.stderr.write(f"{count} frames, {scored.num_targets} boxes of the unsplit network\n")
    for name, knob, coder in coded_pictures():
        coded = coder(pictures)
        found = in_batches(model, [as_input(picture) for picture in coded.pictures])
        yield {"codec": name, "cut": "input", "knob": knob} | _cost(count, *coded[1:]) | scored.of(found)
    graph = SplitGraph(model, (3, SIZE, SIZE))
    examples = [as_input(picture) for picture in frames(film, 0, NUM_EXAMPLES, SIZE)]
    for cut_name in cuts:
        cut = graph.cut(cut_name)
        features = [cut.head(x[None])[0] for x in inputs]
        tiles = Tiles([cut.head(x[None])[0] for x in examples])
        ways: list[tuple[str, Any, Any]] = [
            (name, knob, partial(through_codec, codec)) for name, knob, codec in feature_codecs()
        ]
        for crf in TILE_FACTORS:
            for kind in ("intra", "inter"):
                coder = as_h265(crf, is_intra=kind == "intra")
                ways.append((f"tiles + x265 {kind}", crf, partial(through_tiles, coder, tiles)))
        for name, knob, way in ways:
            received, cost = way(features)
            found = in_batches(partial(_finished, cut), [z[0] for z in received])
            yield {"codec": name, "cut": cut_name, "knob": knob} | cost | scored.of(found)


def main() -> None:
    """Measure, and write the table, the figure and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--first", type=int, default=636, help="the last fifth of the film begins here")
    parser.add_argument("--cuts", nargs="+", default=["pool5", "pool7", "conv8"], help="layers of YOLOv3-tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    rows = []
    for row in measured(path("pedestrians") / "vtest.avi", chosen.first, chosen.frames, chosen.cuts):
        rows.append(row)
        sys.stderr.write(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()) + "\n")
        pd.DataFrame(rows).to_csv(chosen.out / "anchors.csv", index=False, float_format="%.6g")
    write_curves(read_rows(chosen.out), chosen.out)


if __name__ == "__main__":
    main()
