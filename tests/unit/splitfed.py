"""Split-federated training of a small network in this process, for its tests."""

import numpy as np
import torch

from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import Identity
from splitsem.federated.client_app import UpdateMod, make_client_app
from splitsem.federated.flower import Context, RecordDict
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.server_app import Server
from splitsem.federated.site import Site, SplitSite, TailGroup
from splitsem.federated.state import Layout, State
from splitsem.remote.training_tail import LocalTrainingTail
from splitsem.splitting.trainable import TrainableCut
from splitsem.tasks.digits import Digits
from splitsem.training.fit import Fit
from tests.training import Side

POINT = "stage1"
PARTS = [np.arange(0, 16), np.arange(16, 56), np.arange(56, 80)]
FIT = Fit(2, 8, learning_rate=0.01, weight_decay=0.01, gradient_clip_norm=0.5)
TASK = Digits()
CPU = torch.device("cpu")


class SplitFederation:
    """All ends over the network of ``side``, from its initial weights.

    Args:
        side: the network.
        strategy: of the heads.
        codec: of the features.
        is_averaged: how the common tail is made.
        num_rounds: of the run.
        parts: each client's samples.
        make_tail: the device's end, of an engine.
        head_codec: of the heads, both ways.
    """

    def __init__(
        self,
        side: Side,
        strategy,
        codec: Codec | None = None,
        is_averaged=True,
        num_rounds=2,
        parts=PARTS,
        make_tail=LocalTrainingTail,
        head_codec: Codec | None = None,
    ) -> None:
        self.model = side.reset().model
        self.engine = side.engine()
        codec, cut = codec or Identity(), TrainableCut(side.graph, side.training, POINT)
        settings = {name: getattr(FIT, name) for name in ("learning_rate", "weight_decay", "gradient_clip_norm")}
        self.group = TailGroup(
            lambda: make_tail(self.engine), side.plan(POINT, codec, **settings, total_steps=1), is_averaged
        )
        self.layout = Layout(self.model, only=frozenset(cut.head.state()))
        site = SplitSite(TASK, self.model, self.layout, FIT, parts, CPU, 0, cut=cut, codec=codec, group=self.group)
        mod = UpdateMod(self.layout, lambda rate: head_codec or Identity(), head_codec)
        self.grid = InProcessGrid(make_client_app(site, [mod]), len(parts))
        self.server = Server(
            strategy,
            self.layout,
            self.layout.of(self.model),
            mod.make_codec,
            self._end_round,
            num_rounds,
            downlink=head_codec,
            contexts=self.grid.contexts,
        )

    def _end_round(self, heads: State) -> dict[str, float]:
        self.model.load_state_dict({**self.model.state_dict(), **heads, **self.group.end_round()})
        return {}

    def run(self) -> State:
        """All rounds; returns the whole network."""
        self.server.app()(self.grid, Context(1, 0, {}, RecordDict(), {}))
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def fedavg_of_whole_networks(side: Side, strategy, num_rounds=2) -> State:
    """The same clients, each with a whole network."""
    model = side.reset().model
    layout = Layout(model)
    mod = UpdateMod(layout, lambda rate: Identity())
    grid = InProcessGrid(make_client_app(Site(TASK, model, layout, FIT, PARTS, CPU, 0), [mod]), len(PARTS))
    server = Server(strategy, layout, layout.of(model), mod.make_codec, lambda state: {}, num_rounds)
    server.app()(grid, Context(1, 0, {}, RecordDict(), {}))
    return server.final
