"""Frames of changing settings over a real connection: none lost, repeated or out of order, each by its own setting."""

import time
from collections.abc import Sequence
from math import inf

import pytest
import torch

from splitsem.codecs.codec import Codec
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.cost.frame_costs import Seen
from splitsem.pipeline import in_memory
from splitsem.remote.edge_end import EdgeEnd
from splitsem.remote.labels import weights_digest
from splitsem.remote.switching import Offer, Outcome, SwitchingLine
from splitsem.remote.tail_engine import TailEngine
from splitsem_device.answers import Planned
from splitsem_device.retry import Backoff, NoRetry
from tests.integration.network import INPUT_SHAPE, RAW, output_of

SETTINGS: list[tuple[str, Codec]] = [
    (point, codec) for point in ("input", "stem", "stage1", "stage2") for codec in (Identity(), Quantise(2))
]
HOME = len(SETTINGS)


class InTurn:
    """All settings in turn, home included; at home alone, and probing, from a lost frame until something comes back.

    Attributes:
        frames: what it was told.
    """

    def __init__(self, wait_s: float = inf, every_lost: int = 0) -> None:
        self.wait_s, self.every_lost = wait_s, every_lost
        self.frames: list[Seen] = []
        self.is_away = False
        self._num = self._num_remote = 0

    def choose(self, now_s: float) -> int:
        self._num += 1
        return HOME if self.is_away else self._num % (HOME + 1)

    def deadline_s(self, setting: int) -> float:
        self._num_remote += 1
        return 0.0 if self.every_lost and self._num_remote % self.every_lost == 0 else self.wait_s

    def seen(self, frame: Seen) -> None:
        self.frames.append(frame)
        if not self.every_lost and frame.setting != HOME:
            self.is_away = frame.answered_s is None

    def probe(self, now_s: float) -> int | None:
        return 0 if self.is_away else None


@pytest.fixture(scope="module")
def expected(network) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    """Samples, and the outputs that each setting must give for each."""
    model, graph = network
    x = list(torch.rand(40, *INPUT_SHAPE, generator=torch.Generator().manual_seed(2)).split(1))
    with torch.inference_mode():
        outputs = [[in_memory(graph.cut(point), codec, one) for one in x] for point, codec in SETTINGS]
        return x, [*outputs, [model(one) for one in x]]


def line_of(network, make, controller, window: int = 1) -> SwitchingLine:
    model, graph = network
    weights = weights_digest(model)
    ends = [EdgeEnd(graph.cut(point), codec, RAW) for point, codec in SETTINGS]
    x = torch.zeros(1, *INPUT_SHAPE)
    offers = [Offer(end, end.plan(weights, "layer", "float32"), end.fresh().payload(x)) for end in ends]
    whole = torch.inference_mode()(model)
    return SwitchingLine(make, [*offers, None], whole, TailEngine(graph, weights), controller, window)


def check(outcomes: Sequence[Outcome], num: int, expected) -> None:
    x, outputs = expected
    assert len(outcomes) == num
    for number, outcome in enumerate(outcomes):
        assert torch.equal(outcome.result, outputs[outcome.setting][number % len(x)]), (number, outcome.setting)


@pytest.mark.parametrize("window", [1, 4])
def test_each_frame_is_answered_once_in_order_and_by_its_own_setting(server, connect, network, expected, window):
    controller = InTurn()
    line = line_of(network, lambda: connect(server.address), controller, window)
    line.connect()
    outcomes = list(line.frames(10 * expected[0]))
    check(outcomes, 400, expected)
    assert [outcome.setting for outcome in outcomes] == [(number + 1) % (HOME + 1) for number in range(400)]
    assert not any(outcome.is_lost for outcome in outcomes)
    num_remote = sum(outcome.setting != HOME for outcome in outcomes)
    assert line.counters.frames_sent == line.counters.frames_answered == num_remote
    answered = [frame for frame in controller.frames if frame.setting != HOME]
    assert all(0 < frame.server_s < frame.answered_s - frame.sent_s for frame in answered)
    assert all(frame.payload_bytes > 0 < frame.answer_bytes for frame in answered)


def test_a_frame_that_is_given_up_is_finished_here_by_its_own_setting_and_its_late_answer_is_not_told_again(
    server, connect, network, expected
):
    controller = InTurn(every_lost=5)
    line = line_of(network, lambda: connect(server.address), controller, window=2)
    line.connect()
    check(outcomes := list(line.frames(10 * expected[0])), 400, expected)
    num_lost = sum(outcome.is_lost for outcome in outcomes)
    assert num_lost == line.counters.fallback_frames > 20
    assert sum(frame.answered_s is None for frame in controller.frames) == num_lost
    assert 0 < line.counters.frames_late == sum(frame.is_late for frame in controller.frames) <= num_lost


@pytest.mark.parametrize("setting", [0, HOME])
def test_a_probe_goes_beside_a_frame_only_if_that_one_stays_here_else_while_the_line_waits(
    server, connect, network, expected, setting
):
    class Asked(InTurn):
        is_idle = True
        asked: list[bool]

        def choose(self, now_s: float) -> int:
            self.is_idle = False
            return setting

        def seen(self, frame: Seen) -> None:
            super().seen(frame)
            self.is_idle = self.is_idle or not frame.is_probe

        def probe(self, now_s: float) -> int | None:
            self.asked.append(self.is_idle)
            return 1

    controller = Asked()
    controller.asked = []
    line = line_of(network, lambda: connect(server.address), controller)
    line.connect()
    controller.asked.clear()
    check(list(line.frames(expected[0][:6], period_s=0.5)), 6, expected)
    if setting == HOME:
        assert not all(controller.asked)
    else:  # before the first frame, the line has not waited
        assert len(controller.asked) >= 4
        assert all(controller.asked[1:])
    assert line.num_probes >= 4


def test_a_killed_server_leaves_the_frames_to_the_edge_and_a_new_one_gets_them_again(
    start_server, connect, network, expected
):
    server = start_server()
    controller = InTurn()
    line = line_of(network, lambda: connect(server.address, retry=NoRetry(deadline_s=5.0)), controller)
    line.connect()
    outcomes = []
    came_back = False

    def samples():
        nonlocal server
        for number in range(4000):
            if number in (60, 120):
                server.process.kill()
                server.process.wait()
            if number in (80, 140):
                server = start_server(bind=server.address)
                time.sleep(0.05)
            if number > 200 and came_back:
                return
            time.sleep(0.002)
            yield expected[0][number % 40]

    for outcome in line.frames(samples()):
        outcomes.append(outcome)
        came_back = len(outcomes) > 160 and outcome.setting != HOME
    assert came_back
    check(outcomes, len(outcomes), expected)
    assert {outcome.setting for outcome in outcomes[100:119]} == {HOME} or line.num_probes > 1
    assert 1 <= line.counters.fallback_frames <= 4


def test_a_stream_carries_frames_of_several_plans_and_sends_them_again_after_a_restart(start_server, connect, network):
    model, graph = network
    weights = weights_digest(model)
    server = start_server()
    ends = [EdgeEnd(graph.cut(point), Identity(), RAW) for point in ("stem", "stage1")]
    plans = [end.plan(weights, "layer", "float32") for end in ends]
    x = torch.rand(300, *INPUT_SHAPE).split(1)
    tail = connect(server.address, retry=Backoff())
    tail.open_all(plans)
    frames = (Planned(plans[n % 2], ends[n % 2].payload(one)) for n, one in enumerate(x))
    outputs = []
    for answer in tail.stream(frames):
        outputs.append(output_of(answer))
        if len(outputs) == 100:
            server.process.kill()
            server.process.wait()
            server = start_server(bind=server.address)
    with torch.inference_mode():
        assert all(map(torch.equal, outputs, map(model, x)))
    assert len(outputs) == 300
    assert tail.counters.reconnects >= 1
