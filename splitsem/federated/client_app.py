"""The client side of federated training: the mod that codes updates, and the ClientApp that trains on a client."""

import logging
import time
from collections.abc import Callable, Sequence

from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import PayloadError
from splitsem.federated.flower import (
    Array,
    ArrayRecord,
    ClientApp,
    ClientAppCallable,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    MetricRecordValues,
    Mod,
    RecordDict,
)
from splitsem.federated.rate_controller import Rate
from splitsem.federated.site import Site
from splitsem.federated.state import Layout, State, from_record, to_record

log = logging.getLogger(__name__)
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"  # keys of a message's records
MODEL, UPDATE = "model", "update"  # keys of the one array down and up
RESIDUAL, REFERENCE = "residual", "reference"  # keys in a client's Context.state
MakeCodec = Callable[[Rate | None], Codec]


class UpdateMod:
    """Client mod: global network in, ``codec(new − global + residual)`` out; Flower calls it around the client's work.

    Mods that look at weights (clipping, differential privacy) belong between this mod and the training, so the app
    lists them after this mod.

    Args:
        layout: layout of the network; a message for another network is refused.
        make_codec: makes the codec at the rate that the server chose; for rate None, as the codec is configured.
        downlink: decoder of the global network's differences; None where the whole network comes down exactly.
        error_feedback: keep what the codec dropped, in the client's state, and add it to the next update.
    """

    def __init__(
        self, layout: Layout, make_codec: MakeCodec, downlink: Codec | None = None, error_feedback: bool = True
    ) -> None:
        self.layout, self.make_codec, self.downlink = layout, make_codec, downlink
        self.error_feedback = error_feedback

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Code one reply. Raises PayloadError for another network, or a difference to a version not held here."""
        config = message.content.config_records[CONFIG]
        if config["fingerprint"] != self.layout.fingerprint:
            raise PayloadError(
                f"this client trains network {self.layout.fingerprint}, but the server sent {config['fingerprint']!r}: "
                "start both with the same model and federated.statistics"
            )
        began = time.perf_counter()
        received = self._received(message, context, config)
        codec_s = time.perf_counter() - began
        message.content[ARRAYS] = to_record(received)
        reply = call_next(message, context)
        if reply.has_error() or message.metadata.message_type != MessageType.TRAIN:
            return reply
        new = from_record(reply.content.array_records[ARRAYS])
        self.layout.check(new)
        began = time.perf_counter()
        codec = self.make_codec(_rate(config))
        payload = self._encode(codec, self.layout.difference(new, received), context)
        codec_s += time.perf_counter() - began
        stype = f"splitsem.{type(codec).__name__}"
        reply.content[ARRAYS] = ArrayRecord({UPDATE: Array("uint8", (len(payload),), stype, payload)})
        reply.content[CONFIG] = ConfigRecord(
            {"fingerprint": self.layout.fingerprint, "client": int(context.node_config["partition-id"])}
        )
        reply.content.metric_records[METRICS]["codec-s"] = codec_s
        return reply

    def _received(self, message: Message, context: Context, config: ConfigRecord) -> State:
        """The global network as this client now knows it."""
        payload = message.content.array_records[ARRAYS][MODEL].data
        if self.downlink is None:
            return self._decode(Identity(), payload)
        base, version = config["base"], config["version"]
        if base == 0:
            received = self._decode(Identity(), payload)
        else:
            held = context.state.metric_records.get(REFERENCE, MetricRecord({"version": 0}))["version"]
            if held != base:
                raise PayloadError(f"this client holds version {held} of the network, and the update is for {base!r}")
            old = from_record(context.state.array_records[REFERENCE + "-arrays"])
            received = self.layout.add(old, self._decode(self.downlink, payload))
        context.state[REFERENCE + "-arrays"] = to_record(received)
        assert isinstance(version, int)
        context.state[REFERENCE] = MetricRecord({"version": version})
        return received

    def _decode(self, codec: Codec, payload: bytes) -> State:
        return self.layout.split(self.layout.decode(codec, payload))

    def _encode(self, codec: Codec, update: State, context: Context) -> bytes:
        """The payload of an update; what the codec drops is kept for the next update."""
        values = self.layout.join(update)
        has_feedback = self.error_feedback and not isinstance(codec, Identity)
        if has_feedback and RESIDUAL in context.state.array_records:
            residual = from_record(context.state.array_records[RESIDUAL])
            values = [part + residual[str(k)] if str(k) in residual else part for k, part in enumerate(values)]
        payload = self.layout.encode(codec, values)
        if has_feedback:
            pairs = enumerate(zip(values, self.layout.decode(codec, payload), strict=True))
            dropped = {str(k): part - sent for k, (part, sent) in pairs if part.is_floating_point()}
            context.state[RESIDUAL] = to_record(dropped)
        return payload


def _rate(config: ConfigRecord) -> Rate | None:
    bit_width, keep_ratio = config.get("bit-width"), config.get("keep-ratio")
    return Rate(bit_width, keep_ratio) if isinstance(bit_width, int) and isinstance(keep_ratio, float) else None


OWN = "own"  # key in Context.state of the tensors that do not travel


def make_client_app(site: Site, mods: list[Mod], training_mods: Sequence[Mod] = ()) -> ClientApp:
    """An app whose clients train at ``site``; its contexts name them by ``partition-id``.

    Args:
        site: what the clients train with.
        mods: mods around training and evaluation, outermost first: an UpdateMod, then mods that look at weights.
        training_mods: mods inside ``mods``, around training only: those that look at the trained network.
    """
    app = ClientApp()

    @app.train(mods=[*mods, *training_mods])
    def train(message: Message, context: Context) -> Message:
        config = message.content.config_records[CONFIG]
        server_round, proximal_mu = config["server-round"], config.get("proximal-mu", 0.0)
        assert isinstance(server_round, int)
        assert isinstance(proximal_mu, float)
        state = from_record(message.content.array_records[ARRAYS])
        trained = site.train(state, _own(context), _client(context), server_round, proximal_mu)
        if site.layout.own:
            context.state[OWN] = to_record(site.own())
        metrics: dict[str, MetricRecordValues] = {
            "num-examples": trained.num_examples,
            "train-loss": trained.train_loss,
            "train-s": trained.train_s,
            **trained.steps,
        }
        return Message(RecordDict({ARRAYS: to_record(trained.state), METRICS: MetricRecord(metrics)}), reply_to=message)

    @app.evaluate(mods=mods)
    def evaluate(message: Message, context: Context) -> Message:
        state = from_record(message.content.array_records[ARRAYS])
        loss, num_examples = site.evaluate(state, _own(context), _client(context))
        metrics = MetricRecord({"num-examples": num_examples, "loss": loss})
        return Message(RecordDict({METRICS: metrics}), reply_to=message)

    return app


def _client(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _own(context: Context) -> State:
    return from_record(context.state.array_records.get(OWN, ArrayRecord()))
