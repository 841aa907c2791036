"""How the range of `quant` is chosen, on EfficientNet-Lite0: bytes, agreement and divergence of each rule.

    python -m splitsem.data get efficientnet-lite0 photographs more-photographs
    python benchmarks/clipping_rules.py > experiments/real/clipping_rules.csv

The crops are those of train, so that whatever is chosen by them can still be judged on test.
"""

from typing import Any

import torch
from torch.utils.data import default_collate

from harness import photographs
from splitsem.codecs.quantise import Quantise
from splitsem.models.efficientnet_lite import efficientnet_lite0
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.photos import Photos

RULES: dict[str, dict[str, Any]] = {
    "mse": {"clipping": "mse"},
    "minmax": {"clipping": "minmax"},
    "percentile 99.9": {"clipping": "percentile"},
    "percentile 99.99": {"clipping": "percentile", "percentile": 99.99},
    "mse by channel": {"clipping": "mse", "granularity": "channel"},
    "minmax by channel": {"clipping": "minmax", "granularity": "channel"},
}
EVERY = 4  # payloads are made of each fourth crop of a batch of 16


@torch.inference_mode()
def main() -> None:
    """Print a row a cut, bit width and rule; the divergence is that of the classes' probabilities, in nats."""
    task = Photos(root=photographs.folder(), most_per_photograph=6)
    network = efficientnet_lite0(task.input_shape, task.output_shape).eval()
    graph = SplitGraph(network, task.input_shape)
    task.label_by(network)
    train = task.splits().train
    assert isinstance(train, OwnResults)
    x, own = default_collate([train[index] for index in range(len(train))])
    batches = x.split(16)
    expected = torch.cat([network(batch) for batch in batches]).log_softmax(1)
    print("split_point,bit_width,clipping,payload_bytes,agreement,divergence")
    for point in ("blocks.1", "blocks.3", "blocks.4"):
        cut = graph.cut(point)
        made = [cut.head(batch) for batch in batches]
        for bit_width in (3, 4, 5, 6):
            for rule, options in RULES.items():
                codec = Quantise(bit_width, **options)
                y = torch.cat([cut.tail(*cut.received(codec(z))) for z in made])
                sizes = [
                    len(codec.payload(tuple(t[k : k + 1] for t in z))) for z in made for k in range(0, len(z[0]), EVERY)
                ]
                agreement = float((y.argmax(1) == own).float().mean())
                found = y.log_softmax(1)
                divergence = torch.nn.functional.kl_div(found, expected, log_target=True, reduction="batchmean")
                num_bytes = sum(sizes) / len(sizes)
                print(f"{point},{bit_width},{rule},{num_bytes:.0f},{agreement:.3f},{divergence:.4f}", flush=True)


if __name__ == "__main__":
    main()
