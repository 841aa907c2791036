"""PYTHONPATH=examples python run.py --config-dir=examples/conf codec=mine split.point=stage2"""

import zlib

import safetensors.torch

from splitsem.codecs.codec import Codec, Tensors
from splitsem.errors import PayloadError


class MyCodec(Codec):
    """Rounds to bfloat16; zlib squeezes out the zeros that this leaves."""

    def forward(self, z: Tensors) -> Tensors:  # noqa: D102 (splitsem.codecs.codec says what each method is for)
        return tuple(t.bfloat16().to(t.dtype) if t.is_floating_point() else t for t in z)

    def encode(self, z: Tensors) -> bytes:  # noqa: D102
        return zlib.compress(safetensors.torch.save({f"{i:03}": t.contiguous() for i, t in enumerate(self(z))}))

    def decode(self, payload: bytes) -> Tensors:  # noqa: D102
        try:
            tensors = safetensors.torch.load(zlib.decompressobj().decompress(payload, self.expected.most_bytes))
        except (zlib.error, safetensors.SafetensorError) as exc:
            raise PayloadError(f"expected a payload of MyCodec: {exc}") from exc
        return tuple(tensor for _, tensor in sorted(tensors.items()))
