"""Seen is what one frame cost, and Decides is what learns from it: the seam between a line and a controller."""

from typing import NamedTuple, Protocol

FIRST_PROBES = 4
"""The most probes that a line sends before the first frame, one after the other, if the controller asks for them."""


class Seen(NamedTuple):
    """What became of one frame.

    Attributes:
        setting: of the frame.
        sent_s: when its payload was handed to the link; of a frame that stayed here, when it was done.
        answered_s: when its answer was here; None: it has none yet, after the seconds that ``deadline_s`` gave it.
        payload_bytes: of the frame.
        answer_bytes: of its answer.
        server_s: work of the server, as the answer says.
        queue_s: the frame's wait on the server, as the answer says.
        edge_s: work of the edge; 0: unknown.
        is_late: whether the frame was given up before.
        is_probe: whether nobody waits for the answer.
    """

    setting: int
    sent_s: float
    answered_s: float | None
    payload_bytes: int = 0
    answer_bytes: int = 0
    server_s: float = 0.0
    queue_s: float = 0.0
    edge_s: float = 0.0
    is_late: bool = False
    is_probe: bool = False


class Decides(Protocol):
    """Chooses the settings of a stream of frames. All times are seconds from one origin, and never go back."""

    def choose(self, now_s: float) -> int:
        """The setting of the frame that begins now."""

    def deadline_s(self, setting: int) -> float:
        """Seconds after sending when the edge finishes a frame itself, if it has no answer; infinity: never."""

    def seen(self, frame: Seen) -> None:
        """Learn what became of a frame or a probe; of one that was late, a second time."""

    def probe(self, now_s: float) -> int | None:
        """The setting by which a frame that nobody waits for shall be sent now, to see the link; None: no frame."""
