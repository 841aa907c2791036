"""Reading a client's reply: a whole update of this network, or the reason why it is left out."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from splitsem.codecs.codec import Codec
from splitsem.errors import PayloadError
from splitsem.federated.flower import Message, MetricRecord, content_bytes
from splitsem.federated.state import Layout, State
from splitsem.federated.update_mod import ARRAYS, CONFIG, METRICS, UPDATE

STEP_MEASURES = ("steps-uplink-bytes", "steps-downlink-bytes", "steps-label-bytes", "steps-raw-bytes")  # may be there
MEASURES = ("num-examples", "train-loss", "train-s", "codec-s")  # what every reply's metrics must have


class Reply(NamedTuple):
    """A usable reply.

    Attributes:
        message: as it came.
        client: the client's own number, its ``partition-id``.
        update: what was in its payload.
        metrics: the measures of ``MEASURES``, those that were asked for, and of ``STEP_MEASURES`` where they are there;
            finite.
        uplink_bytes: size of its content.
    """

    message: Message
    client: int
    update: State
    metrics: dict[str, float]
    uplink_bytes: int


def read_reply(message: Message | None, layout: Layout, codec: Codec, measures: Sequence[str] = ()) -> Reply:
    """Check and decode a reply, which has these ``measures`` too. Raises PayloadError with what is wrong with it."""
    if message is None:
        raise PayloadError("no reply in time")
    if message.has_error():
        raise PayloadError(message.error.reason or f"error {message.error.code}")
    content = message.content
    for key, records in (
        (ARRAYS, content.array_records),
        (CONFIG, content.config_records),
        (METRICS, content.metric_records),
    ):
        if list(records) != [key]:
            raise PayloadError(f"expected one record {key!r}, got {list(records)}")
    fingerprint, client = (content.config_records[CONFIG].get(key) for key in ("fingerprint", "client"))
    if fingerprint != layout.fingerprint:
        raise PayloadError(f"expected an update of network {layout.fingerprint}, got one of {fingerprint!r}")
    if not isinstance(client, int):
        raise PayloadError(f"expected the client's number, got {client!r}")
    arrays = content.array_records[ARRAYS]
    if list(arrays) != [UPDATE]:
        raise PayloadError(f"expected one array {UPDATE!r}, got {list(arrays)[:3]}")
    expected = f"splitsem.{type(codec).__name__}"
    if arrays[UPDATE].stype != expected:
        raise PayloadError(f"expected an update of {expected}, got {arrays[UPDATE].stype}")
    metrics = _measures(content.metric_records[METRICS], (*MEASURES, *measures))
    update = layout.split(layout.decode(codec, arrays[UPDATE].data))
    return Reply(message, client, update, metrics, content_bytes(content))


def _measures(record: MetricRecord, names: Sequence[str]) -> dict[str, float]:
    measures = {}
    for name in (*names, *(name for name in STEP_MEASURES if name in record)):
        value = record.get(name)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise PayloadError(f"expected {name} of 0 or more, got {value}")
        measures[name] = value
    if measures["num-examples"] == 0:
        raise PayloadError("expected num-examples above 0, got 0")
    return measures
