"""EfficientNet-Lite0 with ImageNet weights on real photographs: bytes and top-1 agreement of each cut and codec.

    python -m splitsem.data get efficientnet-lite0 photographs more-photographs
    python benchmarks/photos.py [most samples]

Bar: `quant4` at ≥ 99 % agreement with the unsplit network, at some cut, for fewer bytes than WebP and JPEG of the
picture need for the same; or the finding that none does.
"""

import sys

import torch
from torch.utils.data import default_collate

from harness import photographs
from splitsem.codecs.codec import Codec
from splitsem.codecs.picture import Jpeg, Webp
from splitsem.codecs.quantise import Quantise
from splitsem.models.efficientnet_lite import efficientnet_lite0
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.photos import Photos

POINTS = ("blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks", "bn2", "global_pool")
BIT_WIDTHS = (3, 4, 6, 8)
QUALITIES = (30, 50, 70, 80, 90, 95, 100)


@torch.inference_mode()
def measure(cut: Cut, codec: Codec, batches: list[torch.Tensor], own: torch.Tensor) -> tuple[float, float]:
    """Mean payload bytes and the share of samples whose likeliest class is the unsplit network's."""
    classes, num_bytes = [], 0
    for x in batches:
        made = cut.head(x)
        decoded = []
        for k in range(len(x)):
            z = tuple(tensor[k : k + 1] for tensor in made)
            num_bytes += len(codec.payload(z))
            decoded.append(codec(z))
        classes.append(cut.tail(*cut.received([torch.cat(rows) for rows in zip(*decoded, strict=True)])).argmax(1))
    return num_bytes / len(own), float((torch.cat(classes) == own).float().mean())


def main() -> None:
    """Print a row a cut and codec."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    task = Photos(root=photographs.folder(), most_per_photograph=15)
    network = efficientnet_lite0(task.input_shape, task.output_shape).eval()
    graph = SplitGraph(network, task.input_shape)
    task.label_by(network)
    test = task.splits().test
    assert isinstance(test, OwnResults)
    step = -(-len(test) // most)
    samples = [test[index] for index in range(0, len(test), step)]
    own = torch.stack([y for _, y in samples])
    batches = list(default_collate([x for x, _ in samples]).split(16))
    print(f"{len(samples)} crops of {len(task.photographs()[2])} photographs")
    codecs: dict[str, tuple[str, Codec]] = {f"webp, quality {q}": ("input", Webp(q)) for q in QUALITIES}
    codecs |= {f"jpeg, quality {q}": ("input", Jpeg(q)) for q in QUALITIES}
    codecs["webp, lossless"] = ("input", Webp(lossless=True))
    for point in reversed(POINTS):
        codecs |= {f"quant{bits} at {point}": (point, Quantise(bits)) for bits in BIT_WIDTHS}
    for name, (point, codec) in codecs.items():
        num_bytes, agreement = measure(graph.cut(point), codec, batches, own)
        print(f"| {name} | {num_bytes:,.0f} | {100 * agreement:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
