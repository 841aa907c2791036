"""What a process of ClientProcesses does with calls, without a process: replies and states are those of one process."""

import io

import msgspec
import torch

from splitsem import redaction
from splitsem.federated import client_processes
from splitsem.federated.client_processes import serve
from splitsem.federated.flower import ConfigRecord, Message, RecordDict, to_bytes
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.state import to_record
from tests.unit.federated import NUM_CLIENTS, small_site
from tests.unit.federated_process import plain_app, small_app


def framed(*said) -> io.BytesIO:
    frames = [msgspec.msgpack.encode(what) for what in said]
    return io.BytesIO(b"".join(len(frame).to_bytes(8, "big") + frame for frame in frames))


def frames(data: bytes) -> list:
    found = []
    while data:
        size = int.from_bytes(data[:8], "big")
        found.append(msgspec.msgpack.decode(data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def start(config=""):
    return [config, torch.get_num_threads(), 30, ["a pa55word"]]


def call(node, content, state=b"", message_type="train"):
    return [node, "1", message_type, to_bytes(content), {"partition-id": node - 1}, state]


def test_a_call_is_answered_as_in_one_process_with_the_clients_new_state(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())
    layout = small_site("local").layout
    config = ConfigRecord({"server-round": 1})
    content = RecordDict({"arrays": to_record(layout.of(small_site("local").model)), "config": config})
    answers = io.BytesIO()
    serve(plain_app, framed(start(), call(2, content), call(9, content)), answers)
    ready, (state, replied, _), (_, nothing, error) = frames(answers.getvalue())
    grid = InProcessGrid(plain_app(""), NUM_CLIENTS)
    (reply,) = grid.send_and_receive([Message(content, 2, "train")])
    assert ready == [None]
    assert state == to_bytes(grid.contexts[2].state) != b""
    arrays = client_processes.from_bytes(replied).array_records["arrays"]
    assert to_bytes(RecordDict({"arrays": arrays})) == to_bytes(RecordDict({"arrays": reply.content["arrays"]}))
    assert nothing is None
    assert "partition-id must be 0…2" in error[1]
    assert redaction.text("a pa55word") == redaction.HIDDEN


def test_what_cannot_be_built_is_the_only_answer():
    answers = io.BytesIO()
    serve(small_app, framed(start("refuses")), answers)
    assert frames(answers.getvalue()) == [["this process refuses"]]


def test_a_frame_that_is_cut_short_ends_the_process():
    answers = io.BytesIO()
    serve(plain_app, io.BytesIO(framed(start(), call(1, RecordDict())).getvalue()[:-1]), answers)
    assert frames(answers.getvalue()) == [[None]]
