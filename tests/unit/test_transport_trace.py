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


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("1\n2\nx\n", 3, "whole milliseconds, got 'x'"),
        ("1\n-2\n", 2, "whole milliseconds"),
        ("1.5\n", 1, "whole milliseconds"),
        ("1\n\n2\n", 2, "whole milliseconds, got ''"),
        ("5\n4\n", 2, "4 ms comes after 5 ms"),
        ("0\n0\n", 2, "above 0 ms"),
        ("", 0, "at least one time"),
        ("9" * 5000, 1, "whole milliseconds"),
    ],
)
def test_damaged_trace_names_its_line(tmp_path: Path, text: str, line: int, why: str) -> None:
    path = tmp_path / "bad.trace"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"line {line}: .*{why}"):
        TraceLink(str(path), 0.0, 0.0)


def test_missing_or_binary_trace_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the trace"):
        TraceLink(str(tmp_path / "none"), 0.0, 0.0)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read the trace"):
        TraceLink(str(tmp_path / "binary"), 0.0, 0.0)


@pytest.mark.parametrize("name", ["rtt_s", "energy_j_per_bit", "start_s"])
def test_negative_argument_is_refused_by_name(tmp_path: Path, name: str) -> None:
    arguments = {"rtt_s": 0.0, "energy_j_per_bit": 0.0} | {name: -1.0}
    with pytest.raises(ValueError, match=f"{name} must be"):
        TraceLink(write(tmp_path, [1]), **arguments)
