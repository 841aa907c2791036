"""The hand-written messages are protobuf's own, byte for byte, and the generated code is the committed .proto's."""

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitsem.errors import PayloadError
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.frames import CHUNK_BYTES, Frame, Reply, chunks, joined
from tests.conftest import ROOT

ids = st.integers(0, 2**64 - 1)
seconds = st.floats(allow_nan=False)
names = st.text(max_size=40)


@given(names, names, ids, st.binary(max_size=300), st.booleans(), ids)
def test_a_frame_is_what_protobuf_writes_and_reads(session, client, request_id, payload, more, num_answered):
    frame = Frame(session, client, request_id, payload, more, num_answered)
    fields = frame._asdict()
    message = tail_pb2.Frame(**fields)
    assert frame.to_bytes() == message.SerializeToString()
    assert Frame.from_bytes(message.SerializeToString()) == frame


@given(ids, seconds, seconds, st.binary(max_size=300))
def test_a_reply_is_what_protobuf_writes_and_reads(request_id, server_s, queue_s, payload):
    reply = Reply(request_id, server_s, queue_s, payload)
    message = tail_pb2.Reply(request_id=request_id, server_s=server_s, queue_s=queue_s, payload=payload)
    assert reply.to_bytes() == message.SerializeToString()
    assert Reply.from_bytes(message.SerializeToString()) == reply


@pytest.mark.parametrize("num_bytes", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1])
def test_chunks_join_to_the_same_frames(num_bytes):
    frames = [Frame("s", "c", number, random.Random(number).randbytes(num_bytes)) for number in range(3)]
    parts = [Frame.from_bytes(part.to_bytes()) for frame in frames for part in chunks(frame)]
    assert all(len(part.payload) <= CHUNK_BYTES for part in parts)
    assert [frame._replace(payload=bytes(frame.payload)) for frame in joined(parts, lambda _: 1 << 40)] == frames


def test_parts_that_do_not_belong_together_are_refused():
    first, other = Frame("s", "c", 1, b"a", more=True), Frame("s", "c", 2, b"b")
    with pytest.raises(PayloadError, match="more of frame 1, got frame 2"):
        list(joined([first, other], lambda _: 1 << 40))
    with pytest.raises(PayloadError, match="at most 2 bytes"):
        list(joined([first, first, first], lambda _: 2))
    with pytest.raises(PayloadError):  # parts without content would go on for ever
        list(joined([first, first._replace(payload=b"")], lambda _: 1 << 40))


@given(st.binary(max_size=60))
def test_any_other_bytes_are_a_value_error_or_a_frame(message):
    try:
        frame = Frame.from_bytes(message)
    except ValueError:
        return
    assert Frame.from_bytes(frame.to_bytes()) == frame


@pytest.mark.parametrize("message", [b"\x08", b"\x22\x05ab", b"\x0b", b"\xff" * 11, b"\x0a\x01\xff"])
def test_a_truncated_or_foreign_message_is_refused(message):
    with pytest.raises(ValueError):
        Frame.from_bytes(message)


def test_the_generated_code_is_that_of_the_committed_proto(tmp_path):
    proto = "splitsem_device/grpc/tail.proto"
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Idevice", *out, proto]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    for name in ("tail_pb2.py", "tail_pb2.pyi"):
        assert (tmp_path / proto).with_name(name).read_text() == (ROOT / "device" / proto).with_name(name).read_text()
