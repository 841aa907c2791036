"""PYTHONPATH=examples python run.py model=custom model._target_=my_weights.net model.weights=net.pt split.point=stage2

First ``PYTHONPATH=examples python examples/my_weights.py`` writes net.pt, for the task digits. Weights of your own are
given likewise: a state dict in a .pt, .pth or .safetensors file, or a checkpoint that has one in it. They are trained
on unless ``trainer.max_epochs=0``.
"""

import torch
from my_model import Net


def net() -> Net:
    """A network may also come from a function; here its shapes are written down."""
    return Net(input_shape=(1, 8, 8), output_shape=(10,))


if __name__ == "__main__":
    torch.save(net().state_dict(), "net.pt")
