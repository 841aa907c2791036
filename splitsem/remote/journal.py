"""Journal keeps the answers to a run's frames in a file as they come, so that a killed edge takes up where it stopped.

A file begins with a line of JSON: the schema and a digest of the plan. Then each answer is a record: a header (size of
the answer, checksums of frame and record, the server's seconds), and the answer. A record that a kill left torn is cut
off. Records survive the end of the process; they are not forced to the disk, so a power cut may lose the last ones.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from splitsem.errors import ConfigError
from splitsem_device.answers import Answer, RemoteTail
from splitsem_device.plan import Plan

SCHEMA = "splitsem.answers/1"
_HEADER = struct.Struct("<QIIdd")  # bytes of the answer, CRC32 of frame and of answer, server_s, queue_s


class Journal:
    """The answers to the frames of one plan, in order.

    Args:
        path: the file; made if there is none.
        plan: of the frames.

    Attributes:
        num_kept: answers in the file.

    Raises:
        ConfigError: the file is something else, or of another plan.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path = Path(path)
        digest = hashlib.sha256(plan.to_json().encode()).hexdigest()[:16]
        self._front = json.dumps({"schema": SCHEMA, "plan": digest}).encode() + b"\n"
        self._check_front()
        self._end = len(self._front)
        self.num_kept = sum(1 for _ in self._records())

    def stream(self, tail: RemoteTail, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """As ``tail.stream(payloads)``; frames with a kept answer are made but not sent, and new answers are kept.

        Give the same frames in the same order as before. Raises ConfigError when a frame is another one.
        """
        frames = iter(payloads)
        for number, (record, answer) in enumerate(self._records()):
            frame = next(frames, None)
            if frame is None:
                return
            if zlib.crc32(frame) != record:
                raise ConfigError(f"frame {number} is not the one that {self.path} has an answer to: give another file")
            yield answer
        first = next(frames, None)
        if first is None:
            return
        sums: dict[int, int] = {}
        with self.path.open("r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            for answer in tail.stream(_summed(chain([first], frames), sums), window):
                self._keep(file, sums.pop(answer.request_id), answer)
                yield Answer(self.num_kept - 1, answer.payload, answer.server_s, answer.queue_s)

    def _keep(self, file: BinaryIO, frame_crc: int, answer: Answer) -> None:
        body = bytes(answer.payload)
        file.write(_HEADER.pack(len(body), frame_crc, zlib.crc32(body), answer.server_s, answer.queue_s) + body)
        file.flush()
        self._end = file.tell()
        self.num_kept += 1

    def _records(self) -> Iterator[tuple[int, Answer]]:
        """Checksum of the frame and answer of each whole record; notes where the last one ends."""
        with self.path.open("rb") as file:
            file.seek(len(self._front))
            size, number, self._end = os.fstat(file.fileno()).st_size, 0, len(self._front)
            while len(header := file.read(_HEADER.size)) == _HEADER.size:
                num_bytes, frame_crc, body_crc, server_s, queue_s = _HEADER.unpack(header)
                if num_bytes > size - file.tell() or zlib.crc32(body := file.read(num_bytes)) != body_crc:
                    return
                self._end = file.tell()
                yield frame_crc, Answer(number, body, server_s, queue_s)
                number += 1

    def _check_front(self) -> None:
        try:
            if not self.path.exists() or not self.path.stat().st_size:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_bytes(self._front)
            with self.path.open("rb") as file:
                front = file.read(len(self._front))
        except OSError as exc:
            raise ConfigError(f"cannot keep answers in {self.path}: {exc.strerror}") from exc
        if front != self._front:
            raise ConfigError(f"{self.path} does not keep answers of this plan: give another file, or the old settings")


def _summed(frames: Iterable[bytes], sums: dict[int, int]) -> Iterator[bytes]:
    """The frames; their checksums go into ``sums`` by number."""
    for number, frame in enumerate(frames):
        sums[number] = zlib.crc32(frame)
        yield frame
