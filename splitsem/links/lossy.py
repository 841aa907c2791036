"""LossyLink: a link whose channel damages bits, with codes, checksums and resends against it, all of them counted."""

import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitsem.links.channel import Bits, Channel, Llrs, hard_decisions
from splitsem.links.fec import Code, Uncoded
from splitsem.links.link import Link, LinkReport
from splitsem.links.simulated import SimulatedLink
from splitsem.links.trace import TraceLink

_SHORT = 64  # up to so many bytes, two bytes of checksum are enough


class Packet:
    """One packet of a simulated link, at the sender and at the receiver.

    The receiver adds up the log-likelihood ratios of all copies that came (Chase combining, IEEE Trans. Commun. 33(5),
    1985), so that every resend helps, and accepts the content that its checksum confirms.
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


_LARGE_BYTES = 8192  # of a body without a code, above which soft decisions would take most of the time


@dataclass
class _Tally:
    link_busy_s: float = 0.0
    link_delay_s: float = 0.0
    pause_s: float = 0.0  # after the last round
    energy_j: float = 0.0
    wire_bytes: int = 0
    air_bits: int = 0
    air_errors: int = 0
    snr_db: float | None = None


class LossyLink(Link):
    """Sends protected bytes in checked packets, and the other bytes once, with whatever errors the channel makes.

    * The protected bytes travel in packets with a checksum (2 bytes up to 64, else 4) and ``header_code``, or
      ``body_code`` where all of a payload is protected. Packets whose checksum is wrong are sent again, together, up to
      ``resends`` times; a round costs half a round trip for the request and a link time, of which only the bits keep
      the link busy. Then the payload is lost.
    * The other bytes travel behind the packets in the first round, with ``body_code``, the first ``priority_share`` of
      them with ``priority_code``. They are never sent again.

    A round goes through the channel in one piece, in this order. Only a body of more than 8 KiB without a code follows
    in a piece of its own, decided bit by bit, which is faster (the channel draws its gains and states anew). The n-th
    payload of a link with a given seed always meets the same randomness, whatever it contains.

    Args:
        channel: what damages bits.
        carrier: rate, delay, energy and packets of the link; it carries the coded bytes.
        header_code: code of a payload's protected bytes when unprotected bytes follow; null: none.
        body_code: code of everything else; null: none.
        priority_code: code of the first part of the unprotected bytes; null: ``body_code``.
        priority_share: share of the unprotected bytes, from the front, that ``priority_code`` is for, 0…1.
        resends: rounds after the first, at most.
        packet_bytes: protected bytes in a packet, beside its checksum.
        seed: seeds the channel's randomness.
    """

    is_lossy = True

    def __init__(
        self,
        channel: Channel,
        carrier: SimulatedLink | TraceLink,
        header_code: Code | None = None,
        body_code: Code | None = None,
        priority_code: Code | None = None,
        priority_share: float = 0.0,
        resends: int = 3,
        packet_bytes: int = 256,
        seed: int = 0,
    ) -> None:
        if not 0 <= priority_share <= 1:
            raise ValueError(f"priority_share must be 0…1, got {priority_share}")
        if resends < 0 or packet_bytes < 1 or seed < 0:
            raise ValueError(
                "resends and seed must not be negative and packet_bytes at least 1, "
                f"got {resends}, {seed} and {packet_bytes}"
            )
        self.channel, self.carrier = channel, carrier
        self.bandwidth_bps, self.rtt_s = carrier.bandwidth_bps, carrier.rtt_s
        self.header_code, self.body_code = header_code or Uncoded(), body_code or Uncoded()
        self.priority_code = priority_code or self.body_code
        self.priority_share = priority_share
        self.resends, self.packet_bytes, self.seed = resends, packet_bytes, seed
        self._num_sent = 0

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """See Link."""
        num_protected = len(payload) if protected_bytes is None else min(protected_bytes, len(payload))
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self._num_sent,)))
        self._num_sent += 1
        tally = _Tally()
        code = self.header_code if num_protected < len(payload) else self.body_code
        checked = packets(payload[:num_protected], self.packet_bytes, code)
        body = self._first_round(checked, payload[num_protected:], tally, rng)
        num_resends = 0
        while num_resends < self.resends and (missing := [p for p in checked if p.received is None]):
            num_resends += 1
            tally.link_delay_s += self.carrier.rtt_s / 2
            _deliver(missing, self._transmit([p.coded for p in missing], tally, rng)[0])
        pieces = [p.received for p in checked if p.received is not None]
        arrived = b"".join((*pieces, body)) if len(pieces) == len(checked) else None
        return LinkReport(
            payload=arrived,
            link_busy_s=tally.link_busy_s,
            link_delay_s=tally.link_delay_s,
            pause_s=tally.pause_s,
            energy_j=tally.energy_j,
            bit_errors=_wrong_bits(payload, arrived) if arrived is not None else 0,
            snr_db=tally.snr_db,
            wire_bytes=tally.wire_bytes,
            air_bits=tally.air_bits,
            air_errors=tally.air_errors,
            num_resends=num_resends,
        )

    def _first_round(self, checked: list[Packet], body: bytes, tally: _Tally, rng: np.random.Generator) -> bytes:
        """Send everything once; returns the unprotected bytes as they arrived."""
        split = round(self.priority_share * len(body))
        front, rest = body[:split], body[split:]
        takes_fast_way = isinstance(self.body_code, Uncoded) and len(rest) > _LARGE_BYTES
        parts = [(front, self.priority_code), (b"" if takes_fast_way else rest, self.body_code)]
        parts = [(octets, code) for octets, code in parts if octets]
        bits = [np.unpackbits(np.frombuffer(octets, np.uint8)) for octets, _ in parts]
        coded = [code.encode(b) for b, (_, code) in zip(bits, parts, strict=True)]
        plain = rest if takes_fast_way else b""
        llrs, decided = self._transmit([*(p.coded for p in checked), *coded], tally, rng, plain)
        _deliver(checked, llrs)
        decoded = [
            np.packbits(code.decode(part_llrs, len(b))).tobytes()
            for (_, code), b, part_llrs in zip(parts, bits, llrs[len(checked) :], strict=True)
        ]
        return b"".join((*decoded, decided))

    def _transmit(
        self, coded: list[Bits], tally: _Tally, rng: np.random.Generator, plain: bytes = b""
    ) -> tuple[list[Llrs], bytes]:
        """Carry pieces of coded bits in one go, then plain bytes; counts the cost.

        Returns what the receiver knows of each piece, and the plain bytes as the receiver decided them.
        """
        bits = np.concatenate(coded) if coded else np.empty(0, np.uint8)
        soft = self.channel.soft(bits, rng)
        sent = np.frombuffer(plain, np.uint8)
        hard = self.channel.hard(sent, rng)
        report = self.carrier.send(bytes(-(-len(bits) // 8) + len(plain)))
        tally.link_busy_s += report.link_busy_s
        tally.link_delay_s += report.link_delay_s
        tally.pause_s = report.pause_s
        tally.energy_j += report.energy_j
        tally.wire_bytes += report.wire_bytes
        tally.air_bits += len(bits) + 8 * len(plain)
        tally.air_errors += int(np.count_nonzero(hard_decisions(soft.llrs) != bits))
        tally.air_errors += int(np.bitwise_count(hard.octets ^ sent).sum())
        if tally.snr_db is None:  # of the first round, which carries the body
            tally.snr_db = hard.snr_db if plain else soft.snr_db
        ends = np.cumsum([len(piece) for piece in coded])
        pieces = [soft.llrs[end - len(piece) : end] for end, piece in zip(ends, coded, strict=True)]
        return pieces, hard.octets.tobytes()


def _deliver(receivers: Sequence[Packet], llrs: list[Llrs]) -> None:
    for packet, copy in zip(receivers, llrs, strict=False):
        packet.take(copy)


def _wrong_bits(sent: bytes, arrived: bytes) -> int:
    difference = np.bitwise_xor(np.frombuffer(sent, np.uint8), np.frombuffer(arrived, np.uint8))
    return int(np.bitwise_count(difference).sum())
