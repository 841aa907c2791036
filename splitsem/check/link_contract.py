"""check_link: what every link promises, tried with payloads of many sizes."""

import copy
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import isfinite

from splitsem.check.promises import Promises, expect
from splitsem.links.link import Link, LinkReport

_SIZES = (0, 1, 100, 1500, 10_000, 1_000_000)
_FEW = 10_000  # bytes that are sent again and again


def check_link(link: Link | Callable[[], Link]) -> tuple[str, ...]:
    """Try every promise of a link.

    Args:
        link: a link, or what makes one, e.g. its class.

    Returns:
        The promises, each a sentence, all of them kept.

    Raises:
        ContractError: a line for each promise that is broken.

    >>> from splitsem.links.simulated import SimulatedLink
    >>> len(check_link(SimulatedLink(bandwidth_bps=1e6, rtt_s=0.01, energy_j_per_bit=1e-7)))
    8
    """
    promises = Promises("a link")
    made, fresh = promises.twins(link, Link, lambda one: False)
    draw = random.Random(0)
    sent = {f"a payload of {size} bytes": draw.randbytes(size) for size in _SIZES}
    reports: dict[bytes, LinkReport] = {}

    def send(payload: bytes) -> None:
        report = copy.deepcopy(fresh).send(payload)  # each finds the link as it was made
        expect(isinstance(report, LinkReport), f"got {type(report).__name__}")
        expect(
            report.payload is None or isinstance(report.payload, bytes),
            f"its payload is a {type(report.payload).__name__}",
        )
        reports[payload] = report

    sent = promises.hold("send returns a LinkReport with bytes, or None for a lost payload", send, sent)
    promises.hold("its seconds and joules are finite and not negative", lambda one: _costs(reports[one]), sent)
    promises.hold("bit_errors counts the wrong bits of what arrived", lambda one: _errors(one, reports[one]), sent)
    arrived = {name: payload for name, payload in sent.items() if reports[payload].payload is not None}
    promises.hold("wire_bytes is at least what arrived", lambda one: _wire(one, reports[one]), arrived)
    if sent and all(_is_clean(payload, reports[payload]) for payload in sent.values()):
        promises.hold_once("more bytes never take less time", partial(_is_monotonous, reports))
    few = {name: payload for name, payload in sent.items() if len(payload) <= _FEW}
    promises.hold("protected_bytes may be any part of a payload", partial(_protected, fresh), few)
    if few:
        promises.hold_once(
            "an equal link reports the same of the same payloads", partial(_repeats, made, fresh, list(few.values()))
        )
    return promises.finish()


def _costs(report: LinkReport) -> None:
    for name in ("link_busy_s", "link_delay_s", "pause_s", "link_s", "energy_j"):
        value = getattr(report, name)
        expect(isfinite(value) and value >= 0, f"{name} is {value}")


def _errors(payload: bytes, report: LinkReport) -> None:
    if report.payload is None or len(report.payload) != len(payload):
        return
    wrong = int.from_bytes(payload) ^ int.from_bytes(report.payload)
    expect(wrong.bit_count() == report.bit_errors, f"{wrong.bit_count()} are wrong, it says {report.bit_errors}")


def _wire(payload: bytes, report: LinkReport) -> None:
    expect(report.wire_bytes >= len(report.payload or b""), f"got {report.wire_bytes} for {len(payload)} bytes")


def _is_clean(payload: bytes, report: LinkReport) -> bool:
    return report.payload == payload and not report.num_resends and not report.air_bits


def _is_monotonous(reports: dict[bytes, LinkReport]) -> None:
    times = sorted((len(payload), report.link_s) for payload, report in reports.items())
    for (fewer, fewer_s), (more, more_s) in pairwise(times):
        expect(more_s >= fewer_s, f"{more} bytes take {more_s:.6g} s, {fewer} bytes {fewer_s:.6g} s")


def _protected(fresh: Link, payload: bytes) -> None:
    for size in sorted({0, len(payload) // 2, len(payload)}):
        report = copy.deepcopy(fresh).send(payload, size)
        expect(isinstance(report, LinkReport), f"with {size} protected bytes, got {type(report).__name__}")


def _repeats(made: Link, fresh: Link, payloads: list[bytes]) -> None:
    for payload in payloads:
        first, second = made.send(payload), fresh.send(payload)
        expect(first == second, f"they differ in a payload of {len(payload)} bytes: seed what is drawn")
