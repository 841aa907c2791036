"""The learned codec against H.265 inter on more frames, by class and by box: longer.csv.

python experiments/real/pedestrians/longer.py [--frames 100] [--first 636]
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anchors import SIZE, Scored, as_input, in_batches
from learned import measured
from sequences import as_h265, frames

from splitsem.data import path
from splitsem.models.detection.darknet import darknet_detector

STEPS = (1.5, 2.5)
RATE_FACTORS = (24, 18, 12)


@torch.no_grad()
def of_pictures(first: int, count: int) -> Iterator[dict[str, Any]]:
    """A row for each rate factor of H.265 inter."""
    model = darknet_detector((3, SIZE, SIZE), (100, 6), masks=[[3, 4, 5], [1, 2, 3]])
    pictures = list(frames(path("pedestrians") / "vtest.avi", first, count, SIZE))
    scored = Scored(in_batches(model, [as_input(picture) for picture in pictures]))
    for crf in RATE_FACTORS:
        coded = as_h265(crf, is_intra=False)(pictures)
        found = in_batches(model, [as_input(picture) for picture in coded.pictures])
        row = {"codec": "H.265 inter", "knob": crf, "bytes_per_frame": coded.num_bytes / count}
        yield row | scored.of(found) | {"num_boxes": scored.num_targets}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--first", type=int, default=636)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    chosen = parser.parse_args()
    rows = []
    for way in (measured(chosen.first, chosen.frames, ["position"], STEPS), of_pictures(chosen.first, chosen.frames)):
        for row in way:
            rows.append({"num_frames": chosen.frames} | row)
            sys.stderr.write(f"{row}\n")
            pd.DataFrame(rows).to_csv(chosen.out / "longer.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
