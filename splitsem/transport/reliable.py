"""Reliable: bytes in packets that each carry a checksum, decoded again from everything received until it is right."""

import binascii
import zlib

import numpy as np

from splitsem.transport.channels.channel import Bits, Llrs
from splitsem.transport.fec.code import Code

_SHORT = 64  # bytes that two bytes of checksum will do for


class Packet:
    """The sender's and the receiver's side of one packet of a simulated link.

    The receiver adds up the log-likelihood ratios of all copies that came (Chase combining, IEEE Trans. Commun. 33(5),
    1985), so that every resend helps, and believes what its checksum confirms.
    """

    def __init__(self, content: bytes, code: Code) -> None:
        self.code = code
        bits = np.unpackbits(np.frombuffer(content + _checksum(content), np.uint8))
        self.num_content = len(content)
        self.num_bits = len(bits)
        self.coded: Bits = code.encode(bits)
        self.received: bytes | None = None
        self._llrs = np.zeros(len(self.coded), np.float32)

    def take(self, llrs: Llrs) -> None:
        """Add one more copy, as the channel left it, and try to decode."""
        self._llrs += llrs
        octets = np.packbits(self.code.decode(self._llrs, self.num_bits)).tobytes()
        content = octets[: self.num_content]
        if octets[self.num_content :] == _checksum(content):
            self.received = content


def packets(content: bytes, packet_bytes: int, code: Code) -> list[Packet]:
    """The content in packets of at most ``packet_bytes`` bytes."""
    return [Packet(content[at : at + packet_bytes], code) for at in range(0, len(content), packet_bytes)]


def _checksum(content: bytes) -> bytes:
    if len(content) <= _SHORT:
        return binascii.crc_hqx(content, 0xFFFF).to_bytes(2, "big")
    return zlib.crc32(content).to_bytes(4, "big")
