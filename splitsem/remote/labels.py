"""How both ends name a network's weights and a codec, so that equal names mean the same values."""

import hashlib

import torch
from torch import nn

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import TensorwiseCodec
from splitsem.splitting.cut import Cut
from splitsem_device.plan import Plan


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and values of all parameters and buffers; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(wire.raw_body(tensor))
    return digest.hexdigest()[:16]


def codec_label(codec: Codec) -> str:
    """The codec's name, with a digest of its weights if any; ends with equal labels can read each other's payloads."""
    name = codec.name
    return f"{name}:{weights_digest(codec)}" if codec.state_dict() else name


def builtin_decoders() -> tuple[TensorwiseCodec, ...]:
    """A fresh decoder of every codec in this package; the call imports Pillow."""
    from splitsem.codecs.fixed_length import FixedLength
    from splitsem.codecs.picture import Jpeg, Pixels, Png, Webp
    from splitsem.codecs.quantise import Quantise
    from splitsem.codecs.tensorwise import HalfPrecision, Identity
    from splitsem.codecs.topk import TopK

    return Identity(), HalfPrecision(), Quantise(), TopK(), Jpeg(), Webp(), Png(), Pixels(), FixedLength()


def precision_of(model: nn.Module) -> str:
    """The dtype of a network: that of its first floating-point parameter, float32 where there is none."""
    dtypes = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
    return str(next(dtypes, torch.float32)).removeprefix("torch.")


def plan_of(cut: Cut, codec: str, answer: str) -> Plan:
    """The plan of a cut, with the names of a codec and of a coder of answers."""
    facts = cut.fingerprint, weights_digest(cut.model), cut.point.name, cut.granularity, precision_of(cut.model)
    return Plan(*facts, codec, answer)


def entry_of(label: str) -> str:
    """The entry of ``workflow.codecs`` for a label.

    >>> entry_of("quant4"), entry_of("topk keep_ratio=0.1")
    ('quant4', '{codec:topk,keep_ratio:0.1}')
    """
    name, *given = label.split(" ")
    return f"{{codec:{','.join([name, *(one.replace('=', ':', 1) for one in given)])}}}" if given else name
