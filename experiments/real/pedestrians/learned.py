"""The codec that learns in closed form, on the frames of anchors.py: learned.csv, and figure and table drawn again.

python -m splitsem.data get yolov3-tiny pedestrians
python experiments/real/pedestrians/learned.py [--frames 30] [--first 636] [--steps 1 1.5 2 2.5 3.5]

It is trained by the project's training on the train part of `task/source=video`, once for each step of the quantiser.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anchors import SIZE, Scored, as_input, in_batches, through_codec
from curves import read_rows, write_curves
from sequences import frames

from splitsem.codecs.learned.klt import Klt
from splitsem.codecs.learned.learned import Stage
from splitsem.data import path
from splitsem.models.detection.darknet import darknet_detector
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.detection.detection import Detection
from splitsem.tasks.detection.video import VideoFrames
from splitsem.training.codec_fit import fit_codec

CUT = "pool7"
CENTRES = {"channel": "KLT", "position": "KLT around the background"}


def measured(first: int, count: int, centres: Sequence[str], steps: Sequence[float]) -> Iterator[dict[str, Any]]:
    """A row for each centre and step."""
    model = darknet_detector((3, SIZE, SIZE), (100, 6), masks=[[3, 4, 5], [1, 2, 3]])
    graph = SplitGraph(model, (3, SIZE, SIZE))
    cut, point = graph.cut(CUT), graph.point(CUT)
    task = Detection(VideoFrames())
    task.label_by(model)
    inputs = [as_input(picture) for picture in frames(path("pedestrians") / "vtest.avi", first, count, SIZE)]
    scored = Scored(in_batches(model, inputs))
    with torch.no_grad():
        features = [cut.head(x[None])[0] for x in inputs]
    for centre in centres:
        for step in steps:
            codec = Klt(tuple(features[0].shape[1:]), step, centre, stages={"tune": Stage(0, feature_weight=1.0)})
            fit_codec(codec, graph, point, task, seed=0)
            with torch.no_grad():
                received, cost = through_codec(codec, features)
                found = in_batches(cut.tail, [z[0] for z in received])
            yield {"codec": CENTRES[centre], "cut": CUT, "knob": step} | cost | scored.of(found)


def main() -> None:
    """Train, measure, and write the table, the figure and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--first", type=int, default=636, help="the last fifth of the film begins here")
    parser.add_argument("--centres", nargs="+", choices=CENTRES, default=list(CENTRES))
    parser.add_argument("--steps", nargs="+", type=float, default=[1.0, 1.5, 2.0, 2.5, 3.5])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args()
    rows = []
    for row in measured(chosen.first, chosen.frames, chosen.centres, chosen.steps):
        rows.append(row)
        sys.stderr.write(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()) + "\n")
        pd.DataFrame(rows).to_csv(chosen.out / "learned.csv", index=False, float_format="%.6g")
    write_curves(read_rows(chosen.out), chosen.out)


if __name__ == "__main__":
    main()
