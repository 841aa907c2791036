"""CodedGrid: any Flower grid, with updates coded on the wire and plain weights for the strategy."""

import logging
import time
from collections.abc import Iterable

from splitsem.errors import LinkError, PayloadError
from splitsem.federated.downlink import Downlink
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
from splitsem.federated.links import ClientLinks
from splitsem.federated.payload_size import Rate
from splitsem.federated.privacy import Privacy
from splitsem.federated.rates import ChoosesRates
from splitsem.federated.reply import STEP_MEASURES, Reply, read_reply
from splitsem.federated.report import RoundReport
from splitsem.federated.state import Layout, State, from_record, to_record, weighted_mean
from splitsem.federated.update_mod import ARRAYS, CONFIG, METRICS, MODEL, MakeCodec

log = logging.getLogger(__name__)


class CodedGrid(Grid):
    """Encodes the global network on its way down and decodes updates on their way up, around another grid.

    A strategy sends and gets whole networks, without the tensors that are held back; replies that cannot be used are
    left out with a warning, whatever is wrong with them.

    Args:
        grid: carries the messages.
        downlink: the way down, which also knows the network's layout.
        make_codec: codec of updates at a rate; its decoder needs no rate.
        held: tensors that no strategy sees, as of the first round; their weighted mean is taken here.
        min_clients: least number of usable replies in a round.
        rates: chooses how finely clients send; None leaves it to the codec's settings.
        links: model of the clients' uplinks; None takes the seconds as they pass here.
        privacy: keeps updates within the norm that the strategy's noise is for.

    Attributes:
        report: of the round so far, see ``start_round``.
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
    ) -> None:
        if min_clients < 1:
            raise ValueError(f"min_clients must be at least 1, got {min_clients}")
        self.grid, self.downlink, self.make_codec = grid, downlink, make_codec
        self.layout: Layout = downlink.layout
        self.held, self.min_clients = held, min_clients
        self.rates, self.links, self.privacy = rates, links, privacy
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
        """The network of which a strategy knows ``arrays``; what it computed in float64 is float32 again."""
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
        """See Grid. Replies to training come back decoded, in the order of their clients' numbers: sums are repeatable.

        Raises:
            LinkError: fewer than ``min_clients`` of them can be used.
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
        read = [self._read(message, replies.get(node), rates[node], elapsed_s) for node, message in sent.items()]
        usable = sorted((reply for reply in read if reply is not None), key=lambda reply: reply.client)
        if len(usable) < self.min_clients:
            reasons = "; ".join(f"client {node}: {why}" for node, why in list(self.report.failed.items())[:3])
            raise LinkError(
                f"round {self.report.server_round}: {len(usable)} of {len(sent)} clients sent a usable update, "
                f"federated.min_clients={self.min_clients}. {reasons}"
            )
        if self.links is not None:
            self.links.end_round(max(self.report.link_s))
        return self._for_strategy(target, usable)

    def _encode(self, message: Message, is_train: bool) -> Rate | None:
        """Put what the client needs in the place of the network."""
        node = message.metadata.dst_node_id
        rate = self.rates.choose(node, self.layout.num_weights) if self.rates and is_train else None
        sent = self.downlink.sent_to(node)
        settings: dict[str, float | str] = {"bit-width": rate.bit_width, "keep-ratio": rate.keep_ratio} if rate else {}
        settings |= {"fingerprint": self.layout.fingerprint, "base": sent.base, "version": self.downlink.version}
        array = Array("uint8", (len(sent.payload),), f"splitsem.{sent.codec}", sent.payload)
        config = ConfigRecord({**message.content.config_records[CONFIG], **settings})
        # a fresh record: strategies give all messages the same one
        message.content = RecordDict({**message.content, ARRAYS: ArrayRecord({MODEL: array}), CONFIG: config})
        return rate

    def _read(self, sent: Message, received: Message | None, rate: Rate | None, elapsed_s: float) -> Reply | None:
        """A usable reply, or None with a warning; either way it is in the report."""
        report, node = self.report, sent.metadata.dst_node_id
        codec = self.make_codec(rate)
        began = time.perf_counter()
        try:
            reply = read_reply(received, self.layout, codec, self.privacy.measures if self.privacy else ())
            if self.privacy is not None:
                reply = reply._replace(update=self.privacy.admit(reply.update, sent.content.config_records[CONFIG]))
        except PayloadError as exc:
            log.warning("round %d: client %d is left out: %s", report.server_round, node, exc)
            report.failed[node] = str(exc)
            self.downlink.note(node, has_answered=False)
            return None
        report.codec_s.append(reply.metrics["codec-s"] + time.perf_counter() - began)
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
        return reply

    def _for_strategy(self, target: State, replies: list[Reply]) -> list[Message]:
        """Whole networks again: what was sent to all, exactly, plus each client's update."""
        states = [self.layout.add(target, reply.update) for reply in replies]
        if self.held:
            held = [{name: state[name] for name in self.held} for state in states]
            self.held = weighted_mean(held, [reply.metrics["num-examples"] for reply in replies])
        for reply, state in zip(replies, states, strict=True):
            metrics = self.privacy.metrics(reply.metrics) if self.privacy else reply.metrics
            reply.message.content = RecordDict({ARRAYS: self.for_strategy(state), METRICS: MetricRecord(dict(metrics))})
        return [reply.message for reply in replies]
