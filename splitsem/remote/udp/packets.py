"""What a datagram holds, in msgpack, sealed by ChaCha20-Poly1305 (RFC 8439); a repeated one is refused.

``session number | sealed(content) tag``: the first 16 bytes travel in the clear and are authenticated. A datagram that
does not open costs one failed check and leaves nothing behind, whoever sent it.
"""

import struct
import threading
from enum import IntEnum
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
MAX_PACKETS = 1 << 32
"""Datagrams that one key seals in one direction; both ends then agree on a new key."""
REPLAY_WINDOW = 1024
MIN_FRAGMENT_BYTES, MAX_FRAGMENT_BYTES = 64, 65_000
IP_UDP_BYTES = 28
_HEADER = struct.Struct("<QQ")
_NONCE = struct.Struct("<IQ")
_TAG_BYTES = 16
OVERHEAD_BYTES = _HEADER.size + 22 + _TAG_BYTES
"""Bytes that a datagram adds to its fragment at most; IP and UDP add 28 more."""


class SpentKeyError(Exception):
    """The key has sealed all the datagrams that it may."""


class Direction(IntEnum):
    """Part of the nonce, so that both directions may use one key."""

    TO_SERVER = 0
    TO_EDGE = 1


class ReplayWindow:
    """Which of the latest ``REPLAY_WINDOW`` numbers came; older ones count as seen.

    >>> window = ReplayWindow()
    >>> [window.add(n) for n in (0, 5, 5, 3, 2000, 3)]
    [True, True, False, True, True, False]
    """

    def __init__(self) -> None:
        self.highest = -1
        self._seen = 0

    def is_new(self, number: int) -> bool:
        """Whether the number may still be taken."""
        back = self.highest - number
        return back < 0 or (back < REPLAY_WINDOW and not self._seen >> back & 1)

    def add(self, number: int) -> bool:
        """Take a number; False when it came before or is too old."""
        if not self.is_new(number):
            return False
        ahead = number - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead) & ((1 << REPLAY_WINDOW) - 1) if ahead < REPLAY_WINDOW else 0
            self.highest, ahead = number, 0
        self._seen |= 1 << -ahead
        return True


class Seal:
    """Seals what leaves one end of a session, and opens what comes; safe to use from several threads.

    Args:
        session: number of the session, which every datagram carries.
        key: ``KEY_BYTES`` bytes that only both ends know.
        sends: the direction of what this end sends.
    """

    def __init__(self, session: int, key: bytes, sends: Direction) -> None:
        self.session = session
        self._cipher = ChaCha20Poly1305(key)
        self._sends, self._receives = sends, Direction(1 - sends)
        self._next = 0
        self._lock = threading.Lock()
        self.seen = ReplayWindow()

    def seal(self, content: bytes) -> tuple[int, bytes]:
        """The datagram's number and the datagram. Raises SpentKeyError."""
        with self._lock:
            number = self._next
            self._next += 1
        if number >= MAX_PACKETS:
            raise SpentKeyError
        head = _HEADER.pack(self.session, number)
        return number, head + self._cipher.encrypt(_NONCE.pack(self._sends, number), content, head)

    def open(self, datagram: bytes) -> bytes | None:
        """The content of a datagram from the other end; None for a forged, damaged, foreign or repeated one."""
        if len(datagram) < _HEADER.size + _TAG_BYTES:
            return None
        session, number = _HEADER.unpack_from(datagram)
        if session != self.session or number >= MAX_PACKETS or not self.seen.is_new(number):
            return None
        try:
            content = self._cipher.decrypt(
                _NONCE.pack(self._receives, number), datagram[_HEADER.size :], datagram[: _HEADER.size]
            )
        except InvalidTag:
            return None
        self.seen.add(number)
        return content


def session_of(datagram: bytes) -> int | None:
    """The session that a datagram claims to be of; None when it is too short for any."""
    return _HEADER.unpack_from(datagram)[0] if len(datagram) >= _HEADER.size + _TAG_BYTES else None


class Outcome(IntEnum):
    """What became of a frame. Append only."""

    ANSWERED = 1
    FILLED = 2  # answered, with something in place of what is missing
    LOST = 3  # too much is missing
    REFUSED = 4  # the payload is damaged or does not fit; the answer is why
    FAILED = 5  # the plan does not hold here; the answer is why


_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Fragment(msgspec.Struct, array_like=True, tag=1):
    """A piece of a frame; or, behind the last one, the question what became of it.

    Attributes:
        frame: number of the frame, from 0 since ``UdpTail.open``.
        size: bytes of the whole frame.
        place: index of the piece; the pieces of a session are equally long, but for a frame's last one.
        body: its bytes.
        is_end: whether this is the question; it has no body, or that of a frame in one piece.
        is_echo: whether nothing is computed, and gaps are counted only.
    """

    frame: _Number
    size: _Number
    place: _Number
    body: bytes
    is_end: bool = False
    is_echo: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether this is all of its frame."""
        return self.place == 0 and len(self.body) == self.size

    def fits(self, fragment_bytes: int) -> bool:
        """Whether the numbers fit each other and the size of the session's pieces."""
        if self.is_end and not self.is_whole:
            return not self.body
        is_inside = self.place < num_fragments(self.size, fragment_bytes)
        return is_inside and len(self.body) == min(fragment_bytes, self.size - self.place * fragment_bytes)


class Became(msgspec.Struct, array_like=True, tag=2):
    """What became of a frame: a datagram or, where it is too long for one, a message of the control channel.

    Attributes:
        outcome: what became of it.
        frame: number of the frame.
        num_missing: bytes of the frame that did not come.
        server_s: seconds of decoding, tail and encoding.
        queue_s: seconds before that on the server.
        body: the answer, or why there is none.
    """

    outcome: Outcome
    frame: _Number
    num_missing: _Number
    server_s: _Seconds = 0.0
    queue_s: _Seconds = 0.0
    body: bytes = b""


class Report(msgspec.Struct, array_like=True, tag=3):
    """What a server has received of a session.

    Attributes:
        highest: the highest number of a datagram.
        num_bytes: bytes of all datagrams, headers of IP and UDP included.
        num_packets: how many datagrams.
        held_s: seconds since the highest number came.
    """

    highest: int
    num_bytes: int
    num_packets: int
    held_s: _Seconds


Content = Fragment | Became | Report
_decoder = msgspec.msgpack.Decoder(Content)


def pack(content: Content) -> bytes:
    """The bytes to seal."""
    return msgspec.msgpack.encode(content)


def parse(content: bytes) -> Content | None:
    """Undo ``pack``; None for any other bytes."""
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None


def num_fragments(size: int, fragment_bytes: int) -> int:
    """How many fragments a frame takes; an empty frame takes one.

    >>> num_fragments(0, 1400), num_fragments(1400, 1400), num_fragments(1401, 1400)
    (1, 1, 2)
    """
    return max(1, -(-size // fragment_bytes))
