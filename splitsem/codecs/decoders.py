"""One decoder for each built-in codec: the wire format tells which one reads a payload, and the bytes the rest."""

from splitsem.codecs.tensorwise import TensorwiseCodec


def builtin_decoders() -> tuple[TensorwiseCodec, ...]:
    """A fresh decoder of every codec in this package; Pillow and numba are imported only now."""
    from splitsem.codecs.fixed_length import FixedLength
    from splitsem.codecs.half import HalfPrecision
    from splitsem.codecs.identity import Identity
    from splitsem.codecs.picture import Jpeg, Webp
    from splitsem.codecs.quantise import Quantise
    from splitsem.codecs.topk import TopK

    return Identity(), HalfPrecision(), Quantise(), TopK(), Jpeg(), Webp(), FixedLength()
