"""TraceLink: integration of a Mahimahi trace, against closed forms and a brute-force simulation, and bad files."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitsem.errors import ConfigError
from splitsem.links.trace import TraceLink


def write(folder: Path, times_ms: list[int]) -> str:
    path = folder / "link.trace"
    path.write_text("".join(f"{time_ms}\n" for time_ms in times_ms))
    return str(path)


def brute_force_times_s(times_ms: list[int], sizes: list[int], start_ms: int) -> list[float]:
    """The same link, one millisecond after the other, packet after packet: an independent reading of the rules."""
    period_ms = times_ms[-1]
    per_ms: dict[int, int] = {}

    def opportunities(now_ms: int) -> int:
        if now_ms not in per_ms:
            in_loops = [now_ms - loop * period_ms for loop in range(now_ms // period_ms + 1)]
            per_ms[now_ms] = sum(times_ms.count(offset) for offset in in_loops if 0 <= offset <= period_ms)
        return per_ms[now_ms]

    now_ms = start_ms
    left_in_this_ms = opportunities(now_ms)
    results_s = []
    for size in sizes:
        offered_ms, remaining = now_ms, max(size, 1)
        while True:
            if left_in_this_ms == 0:
                now_ms += 1
                left_in_this_ms = opportunities(now_ms)
                continue
            left_in_this_ms -= 1
            remaining -= 1500
            if remaining <= 0:
                break
        results_s.append((now_ms - offered_ms) / 1000)
    return results_s


@st.composite
def traces(draw: st.DrawFn) -> list[int]:
    times_ms = sorted(draw(st.lists(st.integers(0, 40), min_size=1, max_size=12)))
    return times_ms if times_ms[-1] > 0 else [*times_ms, 1]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times_ms=traces(), sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=6), data=st.data())
def test_sending_equals_a_simulation_of_every_millisecond(
    tmp_path: Path, times_ms: list[int], sizes: list[int], data: st.DataObject
) -> None:
    start_ms = data.draw(st.integers(0, times_ms[-1] - 1))
    link = TraceLink(write(tmp_path, times_ms), rtt_s=0.0, energy_j_per_bit=0.0, start_s=start_ms / 1000)
    sent_s = [link.send(bytes(size)).link_s for size in sizes]
    assert sent_s == pytest.approx(brute_force_times_s(times_ms, sizes, start_ms))


def test_constant_trace_gives_the_closed_form(tmp_path: Path) -> None:
    # 12 Mbit/s: one opportunity each millisecond
    link = TraceLink(write(tmp_path, list(range(1, 101))), rtt_s=0.02, energy_j_per_bit=0.0)
    assert link.mean_bandwidth_bps == pytest.approx(12e6)
    for num_packets in (1, 7, 100, 1234):
        assert link.send(bytes(1500 * num_packets)).link_s == pytest.approx(0.01 + num_packets / 1000)


def test_trace_is_integrated_and_not_averaged(tmp_path: Path) -> None:
    # ten opportunities at once, then a second of nothing: the mean rate would say 0.1 s a packet for all of them
    link = TraceLink(write(tmp_path, [1] * 10 + [1000]), rtt_s=0.0, energy_j_per_bit=0.0)
    assert [round(link.send(bytes(1500)).link_s, 6) for _ in range(11)] == [0.001] + [0.0] * 9 + [0.999]


def test_consecutive_payloads_see_later_parts_and_a_new_link_starts_again(tmp_path: Path) -> None:
    path = write(tmp_path, [1, 2, 50, 100])
    link = TraceLink(path, 0.0, 0.0)
    times_s = [link.send(bytes(10)).link_s for _ in range(4)]
    assert times_s == pytest.approx([0.001, 0.001, 0.048, 0.05])
    assert link.clock_s == pytest.approx(0.1)
    again = TraceLink(path, 0.0, 0.0)
    assert [again.send(bytes(10)).link_s for _ in range(4)] == times_s


def test_start_offset_skips_the_beginning_of_the_trace(tmp_path: Path) -> None:
    path = write(tmp_path, [1, 2, 50, 100])
    assert TraceLink(path, 0.0, 0.0, start_s=0.01).send(b"x").link_s == pytest.approx(0.04)
    assert TraceLink(path, 0.0, 0.0, start_s=0.11).send(b"x").link_s == pytest.approx(0.04), "it loops"


def test_energy_counts_payload_bits(tmp_path: Path) -> None:
    assert TraceLink(write(tmp_path, [1]), 0.0, 1e-6).send(bytes(125)).energy_j == pytest.approx(1e-3)


def test_a_trace_of_epoch_milliseconds_is_the_link_that_it_is_from_its_start(tmp_path: Path) -> None:
    times_ms = list(range(0, 4000, 2))
    plain = TraceLink(write(tmp_path, times_ms), 0.0, 0.0)
    sent_s = [plain.send(bytes(40_000)).link_s for _ in range(50)]
    late = TraceLink(write(tmp_path, [1_600_000_000_000 + time_ms for time_ms in times_ms]), 0.0, 0.0)
    assert late.mean_bandwidth_bps == plain.mean_bandwidth_bps
    assert [late.send(bytes(40_000)).link_s for _ in range(50)] == sent_s


def test_a_damaged_trace_is_a_config_error_either_way(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("1\nx\n")
    good = write(tmp_path, [1])
    for arguments in ({"path": str(tmp_path / "bad")}, {"path": good, "down_path": str(tmp_path / "bad")}):
        with pytest.raises(ConfigError, match="line 2: a Mahimahi trace holds whole milliseconds"):
            TraceLink(rtt_s=0.0, energy_j_per_bit=0.0, **arguments)


@pytest.mark.parametrize("name", ["rtt_s", "energy_j_per_bit", "start_s"])
def test_negative_argument_is_refused_by_name(tmp_path: Path, name: str) -> None:
    arguments = {"rtt_s": 0.0, "energy_j_per_bit": 0.0} | {name: -1.0}
    with pytest.raises(ValueError, match=f"{name} must be"):
        TraceLink(write(tmp_path, [1]), **arguments)
