"""The ServerApp: rounds of one of Flower's strategies over coded updates, checkpointed and repeatable."""

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.federated import checkpoint
from splitsem.federated.checkpoint import Progress
from splitsem.federated.client_app import MakeCodec
from splitsem.federated.coded_grid import CodedGrid, Downlink, TooFewUpdatesError
from splitsem.federated.flower import (
    AggregationError,
    ArrayRecord,
    ConfigRecord,
    Context,
    FedAvgM,
    FedOpt,
    Grid,
    ServerApp,
    Strategy,
)
from splitsem.federated.in_process import ClientLinks
from splitsem.federated.privacy import Privacy
from splitsem.federated.rate_controller import ChoosesRates
from splitsem.federated.round_report import VOID, Row
from splitsem.federated.state import Layout, State
from splitsem.federated.update_guard import UpdateGuard

log = logging.getLogger(__name__)
_MOST_VOID = 3  # rounds on end; a run whose clients are gone, or false, must not go on to its end in silence


class _RuinedError(SplitSemError):
    """A round's network cannot be the global one."""


@dataclass
class Server:
    """What the server side of a run consists of.

    Args:
        strategy: one of Flower's strategies; with privacy, the strategy that ``Privacy.around`` returns.
        layout: layout of the network.
        initial: the tensors of the first round's network that travel.
        make_codec: makes the codec of updates at a rate.
        score: metrics of a network, added to its round's row; called after each round.
        num_rounds: rounds of the whole run, those before a resume included.
        seed: seed of the sampling of clients.
        downlink: codec of the way down; None sends whole networks.
        min_clients: least number of usable replies in a round.
        timeout_s: how long a client may take; None waits.
        rates: chooses each client's rate; None leaves the rate to the codec's settings.
        links: model of the clients' uplinks; None takes the seconds that pass on the server's clock.
        privacy: the privacy mechanism that the strategy is for; None for a strategy without privacy.
        guard: says which updates may count; None takes an UpdateGuard with its defaults.
        folder: where the checkpoint of each round is kept; None keeps none.
        resume: folder of a run to go on with.
        contexts: contexts of the clients in this process, by node id; they are part of the checkpoint.
        on_round: called with each finished round's row.
    """

    strategy: Strategy
    layout: Layout
    initial: State
    make_codec: MakeCodec
    score: Callable[[State], Row]
    num_rounds: int
    seed: int = 0
    downlink: Codec | None = None
    min_clients: int = 1
    timeout_s: float | None = None
    rates: ChoosesRates | None = None
    links: ClientLinks | None = None
    privacy: Privacy | None = None
    guard: UpdateGuard | None = None
    folder: Path | None = None
    resume: Path | None = None
    contexts: Mapping[int, Context] = field(default_factory=dict)
    on_round: Callable[[Row], None] = lambda row: None

    def __post_init__(self) -> None:
        if self.num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1, got {self.num_rounds}")
        self.final: State = self.initial
        self.rows: list[Row] = []
        self.grid: CodedGrid | None = None

    def app(self) -> ServerApp:
        """The app that Flower runs, or that is called with a grid and a Context; sets ``final``, ``rows``, ``grid``."""
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            self.run(grid)

        return app

    def run(self, grid: Grid) -> None:
        """Run the remaining rounds; one without enough usable updates, or with a ruined network, changes nothing.

        Raises LinkError when three rounds on end, or all rounds, changed nothing, ConfigError for a bad resume.
        """
        self.grid = coded = CodedGrid(
            grid,
            Downlink(self.layout, self.downlink),
            self.make_codec,
            {name: self.initial[name] for name in _held_back(self.strategy, self.layout)},
            min_clients=self.min_clients,
            rates=self.rates,
            links=self.links,
            privacy=self.privacy,
            guard=self.guard,
        )
        progress = Progress(0, coded.for_strategy(self.initial), [])
        if self.resume is not None:
            progress = checkpoint.load(self.resume, self.strategy, coded, self.contexts)
            if fault := coded.guard.fault(coded.whole(progress.arrays), self.initial):
                raise ConfigError(f"federated.resume={self.resume} is ruined: {fault}; begin anew, without it")
            log.info("Going on after round %d of %d", progress.server_round, self.num_rounds)
        while progress.server_round < self.num_rounds:
            self._round_or_nothing(progress, coded)
            self.on_round(progress.rows[-1])
            if self.folder is not None:
                checkpoint.save(self.folder, progress, self.strategy, coded, self.contexts)
        self.final, self.rows = coded.whole(progress.arrays), progress.rows

    def _round_or_nothing(self, progress: Progress, grid: CodedGrid) -> None:
        """A round that leaves strategy and network as they were where its network cannot be the global one."""
        before, held = copy.deepcopy(vars(self.strategy)), grid.held
        try:
            self._round(progress, grid)
        except (TooFewUpdatesError, _RuinedError) as exc:
            last = [row.get(VOID) == 1 for row in progress.rows[-_MOST_VOID + 1 :]]
            if all(last) and (len(last) == _MOST_VOID - 1 or progress.server_round + 1 == self.num_rounds):
                raise LinkError(f"{exc}; no round so far, or of the last {_MOST_VOID}, changed the network") from exc
            log.warning("%s; the round changes nothing", exc)
            vars(self.strategy).clear()
            vars(self.strategy).update(before)
            grid.held = held
            row = {"round/number": progress.server_round + 1.0, "round/s": 0.0, VOID: 1.0}
            row |= grid.report.row(self.layout.num_weights)
            self._close(progress, progress.arrays, row, grid)

    def _close(self, progress: Progress, arrays: ArrayRecord, row: Row, grid: CodedGrid) -> None:
        """Score the network and add the round's row."""
        whole = grid.whole(arrays)
        if fault := grid.guard.fault(whole, self.initial):
            raise _RuinedError(f"round {row['round/number']:.0f}: the clients' mean is no network: {fault}")
        scores = self.score(whole)
        if nan := [name for name, value in scores.items() if not math.isfinite(value)]:
            raise _RuinedError(f"round {row['round/number']:.0f}: the new network's {nan[0]} is {scores[nan[0]]}")
        row |= {f"round/{name}": value for name, value in scores.items()}
        progress.server_round, progress.arrays = progress.server_round + 1, arrays
        progress.rows.append(row)

    def _round(self, progress: Progress, grid: CodedGrid) -> None:
        """Do what Flower's ``Strategy.start`` does in a round, and seed, report and score the round."""
        server_round, began = progress.server_round + 1, time.perf_counter()
        random.seed(f"{self.seed} {server_round}")  # Flower samples clients with Python's own generator
        grid.start_round(server_round)
        messages = self.strategy.configure_train(server_round, progress.arrays, ConfigRecord(), grid)
        replies = grid.send_and_receive(messages, timeout=self.timeout_s)
        if self.privacy is not None:
            self.privacy.seed_noise(server_round, 0)
        try:
            arrays, _ = self.strategy.aggregate_train(server_round, replies)
        except AggregationError as exc:
            raise ConfigError(f"round {server_round}: {type(self.strategy).__name__}: {exc}") from exc
        if arrays is None:
            raise ConfigError(f"round {server_round}: {type(self.strategy).__name__} trained no client")
        row = {
            "round/number": float(server_round),
            "round/s": time.perf_counter() - began,
            VOID: 0.0,
            **grid.report.row(self.layout.num_weights),
        }
        messages = list(self.strategy.configure_evaluate(server_round, arrays, ConfigRecord(), grid))
        if messages:
            answers = grid.send_and_receive(messages, timeout=self.timeout_s)
            if measured := self.strategy.aggregate_evaluate(server_round, answers):
                row |= {f"round/client_{name}": v for name, v in measured.items() if isinstance(v, int | float)}
        self._close(progress, arrays, row, grid)


def _held_back(strategy: Strategy, layout: Layout) -> frozenset[str]:
    """Tensors that this strategy must not see: counters; for a server optimiser, running statistics as well."""
    steps_along_updates = isinstance(strategy, FedOpt | FedAvgM)
    return layout.counters | (layout.statistics if steps_along_updates else frozenset())
