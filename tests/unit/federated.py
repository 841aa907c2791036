"""A small network, clients and a server over it, for the tests of federated training."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from splitsem.codecs.codec import Codec
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.federated.client_app import UpdateMod, make_client_app
from splitsem.federated.flower import Context, Message, RecordDict, Strategy
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.server_app import Server
from splitsem.federated.site import Site
from splitsem.federated.state import Layout, State
from splitsem.models.cnn import StagedCnn
from splitsem.tasks.digits import Digits
from splitsem.training.fit import Fit

NUM_CLIENTS = 3
QUANTISED = Quantise(4)
TASK = Digits()
FIT = Fit(1, 8, learning_rate=0.01, weight_decay=0.01, gradient_clip_norm=1.0)
Fault = Callable[[Message, Context, int], Message]


def small_site(statistics="shared") -> Site:
    """Three clients with 16 digits each, and a network of 13 tensors."""
    torch.manual_seed(0)
    model = StagedCnn((1, 8, 8), (10,), stem_width=4, widths=(4,), inner_widths=(4,))
    parts = [np.arange(16 * i, 16 * (i + 1)) for i in range(NUM_CLIENTS)]
    return Site(TASK, model, Layout(model, statistics), FIT, parts, torch.device("cpu"), seed=0)


class Federation:
    """Both ends in this process.

    Args:
        strategy: Flower's.
        codec: of updates.
        num_rounds: of the run.
        mods: between the codec and the training, e.g. faults.
        settings: more of the Server's.
    """

    def __init__(
        self, strategy: Strategy, codec: Codec | None = None, num_rounds=2, mods=(), outer=(), **settings
    ) -> None:
        codec = codec or Identity()
        self.site = small_site(settings.pop("statistics", "shared"))
        layout = self.site.layout
        down = settings.get("downlink")
        has_feedback = settings.pop("error_feedback", True)
        mod = UpdateMod(layout, settings.pop("make_codec", lambda rate: codec), down, has_feedback)
        self.now_s = 0.0
        privacy = settings.get("privacy")
        if privacy is not None:
            has_feedback = has_feedback and not isinstance(codec, Identity)
            strategy = privacy.around(strategy, layout, settings.setdefault("min_clients", NUM_CLIENTS), has_feedback)
        app = make_client_app(self.site, [*outer, mod, *mods], privacy.mods if privacy else ())
        self.grid = InProcessGrid(app, NUM_CLIENTS, clock=lambda: self.now_s)
        server = Server(
            strategy, layout, layout.of(self.site.model), mod.make_codec, lambda state: {"val_score": 0.0}, num_rounds
        )
        self.server = replace(server, contexts=self.grid.contexts, **settings)

    def run(self) -> State:
        """All rounds; returns the global network."""
        self.server.app()(self.grid, Context(1, 0, {}, RecordDict(), {}))
        return self.server.final


def distance(left: State, right: State) -> float:
    """Largest difference of two networks."""
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)
