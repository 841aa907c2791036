"""LearnedId: the numbers of the learned codecs in the wire format."""

from enum import IntEnum


class LearnedId(IntEnum):
    """Who can read a payload, above the built-in ``wire.CodecId``. Append only; 160…255 are free for others."""

    SEMANTICNN = 128
    DEEPCOD = 129
    ADJSCC = 130
    ENTROPIC_STUDENT = 131
    CRBQ = 132
    AGILENN = 133
    BOTTLENECK = 134
