"""The coded wire of federated training: CodedGrid around any Flower grid, its way down, and checked replies."""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import LinkError, PayloadError
from splitsem.federated.client_app import ARRAYS, CONFIG, METRICS, MODEL, UPDATE, MakeCodec
from splitsem.federated.flower import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Grid,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
    Run,
    content_bytes,
)
from splitsem.federated.in_process import ClientLinks
from splitsem.federated.privacy import Privacy
from splitsem.federated.rate_controller import ChoosesRates, Rate
from splitsem.federated.round_report import RoundReport
from splitsem.federated.state import Layout, State, from_record, to_record, weighted_mean
from splitsem.federated.update_guard import UpdateGuard

STEP_MEASURES = ("steps-uplink-bytes", "steps-downlink-bytes", "steps-label-bytes", "steps-raw-bytes")  # optional
MEASURES = ("num-examples", "train-loss", "train-s", "codec-s")  # what every reply's metrics must have
_MOST = 1e15  # of any measure: means of more say nothing
_SLACK_BYTES = 1 << 16


class TooFewUpdatesError(LinkError):
    """Fewer than ``min_clients`` usable updates came in a round, which therefore changes nothing."""


class MissingReplyError(PayloadError):
    """No reply came, or an error in its place: a fault, but no false update."""


class Reply(NamedTuple):
    """A usable reply.

    Attributes:
        message: the message as it came.
        client: the client's own number, its ``partition-id``.
        update: the update decoded from the message's payload.
        metrics: finite values of ``MEASURES``, of measures that were asked for, and of ``STEP_MEASURES`` if present.
        uplink_bytes: size of the message's content.
    """

    message: Message
    client: int
    update: State
    metrics: dict[str, float]
    uplink_bytes: int


def read_reply(message: Message | None, layout: Layout, codec: Codec, measures: Sequence[str] = ()) -> Reply:
    """Check and decode a reply, which must report ``measures`` too. Raises PayloadError with the reply's fault."""
    if message is None:
        raise MissingReplyError("no reply in time")
    if message.has_error():
        raise MissingReplyError(message.error.reason or f"error {message.error.code}")
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
    if not isinstance(client, int) or isinstance(client, bool):
        raise PayloadError(f"expected the client's number, got {client!r}")
    arrays = content.array_records[ARRAYS]
    if list(arrays) != [UPDATE]:
        raise PayloadError(f"expected one array {UPDATE!r}, got {list(arrays)[:3]}")
    expected = f"splitsem.{type(codec).__name__}"
    if arrays[UPDATE].stype != expected:
        raise PayloadError(f"expected an update of {expected}, got {arrays[UPDATE].stype}")
    if (num_bytes := len(arrays[UPDATE].data)) > (most := 4 * layout.raw_bytes + _SLACK_BYTES):
        raise PayloadError(f"expected an update of at most {most:,} bytes, got {num_bytes:,}")
    metrics = _measures(content.metric_records[METRICS], (*MEASURES, *measures))
    update = layout.split(layout.decode(codec, arrays[UPDATE].data))
    return Reply(message, client, update, metrics, content_bytes(content))


def _measures(record: MetricRecord, names: Sequence[str]) -> dict[str, float]:
    measures = {}
    for name in (*names, *(name for name in STEP_MEASURES if name in record)):
        value = record.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST:
            raise PayloadError(f"expected {name} of 0 or more, up to {_MOST:g}, got {str(value)[:40]}")
        measures[name] = value
    if measures["num-examples"] == 0:
        raise PayloadError("expected num-examples above 0, got 0")
    return measures


class Sent(NamedTuple):
    """One way of sending the network.

    Attributes:
        payload: the coded tensors.
        codec: name of the codec that made it.
        base: version of the network to which the payload is the difference; 0 for the whole network.
    """

    payload: bytes
    codec: str
    base: int


class Downlink:
    """The way down: exact whole networks; with a codec, coded differences for clients that hold the last version.

    The server decodes its own payload, so ``reference`` is bit for bit what the clients hold. What the codec drops is
    in the next difference, which leads from ``reference`` to the exact network.

    Args:
        layout: layout of the network.
        codec: codec of the differences; None sends whole networks only.

    Attributes:
        reference: the network as clients know it after the last ``prepare``; None before the first.
        version: number of prepared networks; 0 before the first.
        holders: by node id, the version that a client is known to hold.
    """

    def __init__(self, layout: Layout, codec: Codec | None) -> None:
        self.layout, self.codec = layout, codec
        self.reference: State | None = None
        self.version = 0
        self.holders: dict[int, int] = {}
        self._difference: Sent | None = None
        self._whole: Sent | None = None

    def prepare(self, target: State) -> None:
        """Take ``target`` as the network to be sent from now on."""
        self._whole = self._difference = None
        if self.codec is None or self.reference is None:
            self.reference = target
        else:
            difference = self.layout.difference(target, self.reference)
            payload = self.layout.encode(self.codec, self.layout.join(difference))
            self._difference = Sent(payload, type(self.codec).__name__, self.version)
            self.reference = self.layout.add(self.reference, self.layout.split(self.layout.decode(self.codec, payload)))
        self.version += 1

    def sent_to(self, node: int) -> Sent:
        """What to send to a client."""
        if self._difference is not None and self.holders.get(node) == self._difference.base:
            return self._difference
        if self._whole is None:
            assert self.reference is not None
            self._whole = Sent(self.layout.encode(Identity(), self.layout.join(self.reference)), "Identity", 0)
        return self._whole

    def note(self, node: int, has_answered: bool) -> None:
        """Remember what a client holds: the prepared version if the client has answered, else nothing known."""
        if has_answered:
            self.holders[node] = self.version
        else:
            self.holders.pop(node, None)


log = logging.getLogger(__name__)


class CodedGrid(Grid):
    """Encodes the global network on its way down and decodes updates on their way up, around another grid.

    A strategy sends and gets whole networks, without the held-back tensors. Unusable replies are left out with a
    warning.

    Args:
        grid: carries the messages.
        downlink: the way down, which also knows the network's layout.
        make_codec: codec of updates at a rate; its decoder needs no rate.
        held: tensors that no strategy sees, as of the first round; CodedGrid takes their weighted mean.
        min_clients: least number of usable replies in a round.
        rates: chooses each client's rate; None leaves the rate to the codec's settings.
        links: model of the clients' uplinks; None takes the seconds that pass on the server's clock.
        privacy: keeps updates within the norm that the strategy's noise is for.
        guard: says which updates may count.

    Attributes:
        report: the report of the round so far, see ``start_round``.
    """

    def __init__(
        self,
        grid: Grid,
        downlink: Downlink,
        make_codec: MakeCodec,
        held: State,
        *,
        min_clients: int = 1,
        rates: ChoosesRates | None = None,
        links: ClientLinks | None = None,
        privacy: Privacy | None = None,
        guard: UpdateGuard | None = None,
    ) -> None:
        if min_clients < 1:
            raise ValueError(f"min_clients must be at least 1, got {min_clients}")
        self.grid, self.downlink, self.make_codec = grid, downlink, make_codec
        self.layout: Layout = downlink.layout
        self.held, self.min_clients = held, min_clients
        self.rates, self.links, self.privacy = rates, links, privacy
        self.guard = guard or UpdateGuard(self.layout)
        self.report = RoundReport(0)

    def set_run(self, run: Run) -> None:
        """See Grid."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """See Grid."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See Grid."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> list[int]:
        """See Grid; sorted, so that a seed draws the same clients."""
        return sorted(self.grid.get_node_ids())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Grid; uncoded, for messages that carry no network."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See Grid; uncoded."""
        return self.grid.pull_messages(message_ids)

    def whole(self, arrays: ArrayRecord) -> State:
        """The network made of a strategy's ``arrays``, each in the network's own dtype, and the held-back tensors."""
        known = from_record(arrays)
        return {n: self.held[n] if n in self.held else known[n].to(self.layout.dtype(n)) for n in self.layout.names}

    def for_strategy(self, state: State) -> ArrayRecord:
        """The part of a network that a strategy sees."""
        return to_record({name: tensor for name, tensor in state.items() if name not in self.held})

    def start_round(self, server_round: int) -> None:
        """Begin a new report."""
        self.report = RoundReport(server_round)
        if self.rates is not None:
            self.rates.start_round(server_round)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """See Grid. Training replies come back decoded and sorted by client number, so that sums are repeatable.

        Raises:
            TooFewUpdatesError: fewer than ``min_clients`` replies can be used.
        """
        sent = {message.metadata.dst_node_id: message for message in messages}
        if not sent:
            return []
        first = next(iter(sent.values()))
        target = self.whole(first.content.array_records[ARRAYS])
        is_train = first.metadata.message_type == MessageType.TRAIN
        began = time.perf_counter()
        self.downlink.prepare(target)
        rates = {node: self._encode(message, is_train) for node, message in sent.items()}
        self.report.encode_s += time.perf_counter() - began
        self.report.downlink_bytes += [content_bytes(message.content) for message in sent.values() if is_train]
        began = time.perf_counter()
        received = list(self.grid.send_and_receive(sent.values(), timeout=timeout))
        elapsed_s = time.perf_counter() - began
        replies = {reply.metadata.src_node_id: reply for reply in received}
        if not is_train:
            for node in sent:
                self.downlink.note(node, node in replies and not replies[node].has_error())
            return received
        read = {node: self._read(message, replies.get(node), rates[node], sent) for node, message in sent.items()}
        known = {node: reply for node, reply in read.items() if reply is not None}
        if not (self.privacy and self.privacy.bounds_updates):
            updates = {node: reply.update for node, reply in known.items()}
            for node, why in self.guard.refused(target, updates, is_noised=self.privacy is not None).items():
                self._leave_out(node, why, is_refused=True)
                del known[node]
        for node, reply in known.items():
            self._count(node, reply, rates[node], elapsed_s)
        usable = sorted(known.values(), key=lambda reply: reply.client)
        if len(usable) < self.min_clients:
            reasons = "; ".join(f"client {node}: {why}" for node, why in list(self.report.failed.items())[:3])
            raise TooFewUpdatesError(
                f"round {self.report.server_round}: {len(usable)} of {len(sent)} clients sent a usable update, "
                f"federated.min_clients={self.min_clients}. {reasons}"
            )
        if self.links is not None:
            self.links.end_round(max(self.report.link_s))
        return self._for_strategy(target, usable)

    def _encode(self, message: Message, is_train: bool) -> Rate | None:
        """Replace the network in ``message`` by what its client needs; returns the client's rate."""
        node = message.metadata.dst_node_id
        rate = self.rates.choose(node, self.layout.num_weights) if self.rates and is_train else None
        sent = self.downlink.sent_to(node)
        settings: dict[str, float | str] = {"bit-width": rate.bit_width, "keep-ratio": rate.keep_ratio} if rate else {}
        settings |= {"fingerprint": self.layout.fingerprint, "base": sent.base, "version": self.downlink.version}
        array = Array("uint8", (len(sent.payload),), f"splitsem.{sent.codec}", sent.payload)
        config = ConfigRecord({**message.content.config_records[CONFIG], **settings})
        # a fresh record, because strategies give all messages the same record
        message.content = RecordDict({**message.content, ARRAYS: ArrayRecord({MODEL: array}), CONFIG: config})
        return rate

    def _read(self, sent: Message, received: Message | None, rate: Rate | None, asked: Collection[int]) -> Reply | None:
        """The reply, decoded, or None with a warning; ``codec-s`` has the server's share too."""
        node, codec = sent.metadata.dst_node_id, self.make_codec(rate)
        began = time.perf_counter()
        try:
            reply = read_reply(received, self.layout, codec, self.privacy.measures if self.privacy else ())
            self.guard.check_sender(node, reply.client, reply.metrics["num-examples"], asked)
            if self.privacy is not None:
                reply = reply._replace(update=self.privacy.admit(reply.update, sent.content.config_records[CONFIG]))
        except PayloadError as exc:
            self._leave_out(node, str(exc), is_refused=not isinstance(exc, MissingReplyError))
            return None
        reply.metrics["codec-s"] += time.perf_counter() - began
        return reply

    def _leave_out(self, node: int, why: str, *, is_refused: bool) -> None:
        """Tell that a client does not count in this round, and whether it is for what it sent."""
        log.warning("round %d: client %d is left out: %s", self.report.server_round, node, why)
        self.report.failed[node] = why
        if is_refused:
            self.report.refused.append(node)
        self.downlink.note(node, has_answered=False)

    def _count(self, node: int, reply: Reply, rate: Rate | None, elapsed_s: float) -> None:
        """Add a reply that counts to the round's report, and tell what chooses rates."""
        report, codec = self.report, self.make_codec(rate)
        report.codec_s.append(reply.metrics["codec-s"])
        self.downlink.note(node, has_answered=True)
        up_bytes, train_s = reply.uplink_bytes, reply.metrics["train-s"]
        report.uplink_bytes.append(up_bytes)
        report.train_s.append(train_s)
        report.losses.append((reply.metrics["train-loss"], reply.metrics["num-examples"]))
        if steps := {name: reply.metrics[name] for name in STEP_MEASURES if name in reply.metrics}:
            report.steps.append(steps)
        if (bit_width := getattr(codec, "bit_width", None)) is not None:
            report.bit_widths.append(bit_width)
        link_s = max(elapsed_s - train_s, 1e-3)
        if self.links is not None:
            link_s = self.links.upload_s(node, up_bytes)
            report.link_s.append(link_s)
        if self.rates is not None and rate is not None:
            self.rates.sent(node, rate, up_bytes, link_s)

    def _for_strategy(self, target: State, replies: list[Reply]) -> list[Message]:
        """The replies with whole networks: the exact network ``target`` plus each client's update."""
        states = [self.layout.add(target, reply.update) for reply in replies]
        if self.held:
            held = [{name: state[name] for name in self.held} for state in states]
            self.held = weighted_mean(held, [reply.metrics["num-examples"] for reply in replies])
        for reply, state in zip(replies, states, strict=True):
            metrics = self.privacy.metrics(reply.metrics) if self.privacy else reply.metrics
            reply.message.content = RecordDict({ARRAYS: self.for_strategy(state), METRICS: MetricRecord(dict(metrics))})
        return [reply.message for reply in replies]
