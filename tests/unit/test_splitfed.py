"""Split-federated training in one process: equal to what it takes apart, repeatable, counted, and it bears deaths."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from splitsem.codecs.quantise import Quantise
from splitsem.errors import BusyError, ConfigError, LinkError, PayloadError
from splitsem.remote.split_module import train_local_split
from splitsem.remote.training_engine import CommonTail, TrainingLimits
from splitsem.remote.training_messages import Kind, Request
from splitsem.remote.training_tail import LocalTrainingTail
from splitsem.splitting.trainable import TrainableCut
from splitsem.tasks.classification import domains_of
from splitsem.tasks.partitions import ByDomain
from tests.training import Side
from tests.unit.federated import distance

strategies = pytest.importorskip("flwr.serverapp.strategy", reason="the extra federated is not installed")
from tests.unit.splitfed import FIT, PARTS, POINT, TASK, SplitFederation, fedavg_of_whole_networks  # noqa: E402


@pytest.fixture(scope="module")
def side():
    return Side()


def fedavg():
    return strategies.FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def test_averaged_heads_and_tails_are_the_average_of_whole_networks_weighted_by_samples(side):
    expected = fedavg_of_whole_networks(side, fedavg())
    got = SplitFederation(side, fedavg()).run()
    assert got.keys() == expected.keys()
    assert distance(got, expected) < 2e-4
    assert distance(got, side.initial) > 1e-2


@pytest.mark.parametrize("is_averaged", [True, False])
def test_one_client_in_one_round_is_split_training_of_that_client(side, is_averaged):
    run = SplitFederation(side, fedavg(), is_averaged=is_averaged, num_rounds=1, parts=PARTS[1:2])
    got = run.run()
    seed = int(np.random.SeedSequence([0, 1, 0]).generate_state(1)[0])
    plan = run.group.plan_of(seed, 40, 10)
    plan = replace(plan, group="", is_averaged=False, num_samples=0)
    tail = LocalTrainingTail(side.reset().engine())
    trainer = side.trainer(tail, **{name: getattr(plan, name) for name in vars(plan) if name not in ("point", "codec")})
    train_local_split(FIT, trainer, Subset(TASK.splits().train, PARTS[1].tolist()), seed)
    assert tail.traffic.num_steps == 10
    trainer.finish()
    assert distance(got, side.model.state_dict()) < 1e-6


@pytest.mark.parametrize("is_averaged", [True, False])
def test_the_same_seed_gives_the_same_network_whatever_was_drawn_before(side, is_averaged):
    settings = {"codec": Quantise(8), "is_averaged": is_averaged, "head_codec": Quantise(8)}
    first = SplitFederation(side, fedavg(), **settings).run()
    random.seed(99)
    torch.manual_seed(99)
    assert distance(first, SplitFederation(side, fedavg(), **settings).run()) == 0


class Counting(LocalTrainingTail):
    """Adds up the messages of training steps."""

    up: list[int]
    down: list[int]

    def _exchange(self, number, message):
        answer = super()._exchange(number, message)
        if message[0] == Kind.STEP:
            self.up.append(len(message))
            self.down.append(len(answer.payload))
        return answer


def test_bytes_of_steps_and_heads_add_up(side):
    Counting.up, Counting.down = [], []
    run = SplitFederation(side, fedavg(), Quantise(8), num_rounds=1, make_tail=Counting, head_codec=Quantise(8))
    run.run()
    (row,) = run.server.rows
    assert len(Counting.up) == FIT.max_epochs * sum(len(part) // 8 for part in PARTS)
    report = run.server.grid.report
    assert row["round/total_uplink_bytes"] == sum(Counting.up) + sum(report.uplink_bytes)
    assert row["round/uplink_bytes"] == pytest.approx(row["round/total_uplink_bytes"] / len(PARTS))
    assert row["round/downlink_bytes"] == pytest.approx((sum(Counting.down) + sum(report.downlink_bytes)) / len(PARTS))
    features = side.graph.point(POINT).raw_bytes
    seen = FIT.max_epochs * sum(map(len, PARTS)) / len(PARTS)
    assert row["round/steps_raw_bytes"] == pytest.approx(seen * features + row["round/label_bytes"])
    assert row["round/label_bytes"] > seen * 8
    assert row["round/uplink_bytes"] < 0.4 * (row["round/steps_raw_bytes"] + run.layout.raw_bytes)


class Dying(LocalTrainingTail):
    """The link of the client with 40 samples breaks in its third step."""

    def step(self, payload, y):
        if self.traffic.num_steps == 2 and self._samples == 40:
            raise LinkError("the client is gone")
        return super().step(payload, y)

    def open(self, plan):
        self._samples = plan.num_samples
        super().open(plan)


@pytest.mark.parametrize("is_averaged", [True, False])
def test_a_client_that_dies_in_a_round_leaves_no_trace_in_head_or_tail(side, caplog, is_averaged):
    settings = {"is_averaged": is_averaged, "num_rounds": 1}
    alone = SplitFederation(side, fedavg(), parts=PARTS[:1], **settings).run()
    run = SplitFederation(side, fedavg(), parts=PARTS[:2], make_tail=Dying, **settings)
    assert distance(run.run(), alone) == 0
    assert run.server.rows[0]["round/failed_clients"] == 1
    assert "client 2 is left out: the client is gone" in caplog.text
    assert run.engine.num_sessions() == 0


def test_in_turn_each_tail_starts_from_the_one_before(side):
    averaged, in_turn = (SplitFederation(side, fedavg(), is_averaged=a, num_rounds=1).run() for a in (True, False))
    heads = [name for name in averaged if name.startswith("stem")]
    tails = [name for name in averaged if name not in heads and averaged[name].is_floating_point()]
    moved = [[float((net[n] - side.initial[n]).abs().sum()) for n in tails] for net in (averaged, in_turn)]
    assert sum(moved[1]) > 1.5 * sum(moved[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_ruined_copy_does_not_get_into_the_common_tail(side, value):
    tail = CommonTail(TrainableCut(side.reset().graph, side.training, POINT), is_averaged=True)
    kept = {name: t.clone() for name, t in tail.state.items()}
    ruined = {name: torch.full_like(t, value) if t.is_floating_point() else t for name, t in kept.items()}
    with pytest.raises(PayloadError, match="weights must be finite and at most"):
        tail.commit(ruined, 30, 0)
    tail.end_round()
    assert all(map(torch.equal, kept.values(), tail.state.values()))


def test_a_tail_counts_by_its_samples_and_only_in_its_round(side):
    cut = TrainableCut(side.reset().graph, side.training, POINT)
    tail = CommonTail(cut, is_averaged=True)
    first = {name: torch.ones_like(t) if t.is_floating_point() else t + 4 for name, t in tail.state.items()}
    second = {name: t * 0 if t.is_floating_point() else t + 1 for name, t in tail.state.items()}
    counters = [name for name, t in tail.state.items() if not t.is_floating_point()]
    before = {name: int(tail.state[name]) for name in counters}
    tail.commit(first, 30, 0)
    tail.commit(second, 10, 0)
    tail.end_round()
    assert all((t == 0.75).all() for t in tail.state.values() if t.is_floating_point())
    assert all(int(tail.state[name]) == before[name] + 3 for name in counters)  # 3.25, rounded
    with pytest.raises(ConfigError, match="its round is over"):
        tail.commit(first, 30, 0)
    with pytest.raises(ConfigError, match="at least 1 sample, got 0"):
        tail.commit(first, 0, 1)
    kept = dict(tail.state)
    tail.end_round()
    assert all(map(torch.equal, kept.values(), tail.state.values()))
    one_by_one = CommonTail(cut, is_averaged=False)
    one_by_one.commit(first, 30, 0)
    with pytest.raises(ConfigError, match="another one trained at the same time"):
        one_by_one.commit(second, 30, 0)
    assert all(map(torch.equal, one_by_one.state.values(), first.values()))


def test_a_server_keeps_few_common_tails_and_forgets_those_that_nobody_uses(side):
    now_s = 0.0
    engine = side.reset().engine(TrainingLimits(max_trainers=2, idle_s=10), clock=lambda: now_s)

    def opened(group, **changes):
        tail = LocalTrainingTail(engine)
        tail.open(replace(side.plan(), group=group, **changes))
        return tail

    opened("a").close()
    other = opened("b")
    with pytest.raises(BusyError, match="2 groups already"):
        opened("c")
    with pytest.raises(ConfigError, match="give all edges the same"):
        opened("b", point="stage2")
    other.disband()
    other.close()
    opened("c").close()
    now_s = 11.0
    opened("d").close()
    opened("e").close()
    alone = opened("")
    with pytest.raises(PayloadError, match="expected a session of a group for COMMIT"):
        engine.answer(alone._session, 0, Request(Kind.COMMIT).to_bytes())


@pytest.mark.parametrize(("num_samples", "steps"), [(1, 1), (8, 1), (9, 1), (10, 2), (16, 2), (17, 2), (18, 3)])
def test_steps_of_a_client_are_known_before_it_trains(num_samples, steps):
    assert FIT.local_steps(num_samples) == 2 * steps


def test_a_partition_by_domain_wants_domains():
    from splitsem.workflows.federated.assembly import divide

    with pytest.raises(ConfigError, match=r"has none: take the task domains with domain=null"):
        divide(ByDomain(), TASK, 2)
    one = Subset(TASK.splits().train, [0, 1])
    one.dataset = type("OneDomain", (), {"domains": np.zeros(4)})()
    with pytest.raises(ConfigError, match="all 2 samples are of one"):
        domains_of(one)
