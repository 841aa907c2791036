"""The ClientApp: trains the global network on a client's samples, wherever Flower runs it."""

from collections.abc import Sequence

from splitsem.federated.flower import (
    ArrayRecord,
    ClientApp,
    Context,
    Message,
    MetricRecord,
    MetricRecordValues,
    Mod,
    RecordDict,
)
from splitsem.federated.site import Site
from splitsem.federated.state import State, from_record, to_record
from splitsem.federated.update_mod import ARRAYS, CONFIG, METRICS

OWN = "own"  # key in Context.state of the tensors that do not travel


def make_client_app(site: Site, mods: list[Mod], training_mods: Sequence[Mod] = ()) -> ClientApp:
    """An app whose clients train at ``site``; its contexts name them by ``partition-id``.

    Args:
        site: what they train with.
        mods: around training and evaluation, the outermost first: an UpdateMod, then those that look at weights.
        training_mods: inside them, around training only: those that look at the network that comes back.
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
