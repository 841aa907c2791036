"""DeviceNet: head and encoder as one network from a sample to what its payload is packed from."""

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from splitsem.codecs.codec import Codec, Tensors
from splitsem.export.coders import Coder, coder
from splitsem.export.framing import Framing
from splitsem.split.partition import Cut


class DeviceNet(nn.Module):
    """From a batch of samples to the outputs of a coder; holds nothing of the server's.

    Args:
        cut: gives the head.
        coder: see ``coders.coder``.
    """

    def __init__(self, cut: Cut, coder: Coder) -> None:
        super().__init__()
        self.head = cut.head
        self.coder = coder

    def forward(self, x: Tensor) -> Tensors:
        """Outputs for samples ``(B, *input_shape)``, e.g. symbols ``(B, N)``; see the coder's framing."""
        return self.coder(self.head(x))


def export(cut: Cut, codec: Codec) -> tuple[ExportedProgram, Framing]:
    """The device's half for one sample at a time, and how its outputs become what ``codec.encode`` makes.

    Args:
        cut: of a network in float32 on the CPU.
        codec: in eval mode, on the CPU.

    Raises:
        ConfigError: the codec's encoder cannot be exported, or what crosses cannot.
    """
    made = coder(codec)
    with torch.no_grad():
        framing = made.framing(list(cut.example.shape[1:]), cut.head(cut.example))
        program = torch.export.export(DeviceNet(cut, made).eval(), (cut.example,), strict=False)
    return program, framing
