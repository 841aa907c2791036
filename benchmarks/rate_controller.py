"""The rate controller against every fixed bit width over links that change: seconds, late updates, errors.

    python benchmarks/rate_controller.py [--rounds 200] [--clients 4] [--deadline 1.0]

Real payloads (Quantise with rANS) of a synthetic update of 100,000 Laplace-distributed values; links wander between
0.25 and 8 Mbit/s, changing every 5 s (Mahimahi traces, seeded). A low width alone is always fast. What counts is the
error that is sent in time, so the last columns are the updates after the deadline and the mean relative squared error.
"""

import argparse
import tempfile
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path

import torch

from harness.ends import state_of_the_machine
from harness.rounds import Fixed, Policy, rounds_over, wandering_rates, write_trace
from splitsem.codecs.quantise import Quantise
from splitsem.federated.rate_controller import Rate, RateController
from splitsem.links.trace import TraceLink

RAW_VALUES = 100_000
RTT_S = 0.05
COMPUTE_S = 2.0


def real_payloads() -> tuple[dict[int, int], dict[int, float]]:
    """Bytes and relative squared error of the update at each width."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(1, RAW_VALUES, generator=generator) - 0.5
    update = -torch.sign(uniform) * torch.log1p(-2 * uniform.abs())
    sizes, errors = {}, {}
    for bits in range(1, 9):
        codec = Quantise(bits, entropy="rans")
        payload = codec.encode((update,))
        (z_hat,) = codec.decode(payload)
        sizes[bits] = len(payload)
        errors[bits] = ((z_hat - update).square().sum() / update.square().sum()).item()
    return sizes, errors


def main() -> None:
    """Print a row for each policy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--deadline", type=float, default=1.0)
    given = parser.parse_args()
    sizes, errors = real_payloads()
    policies: dict[str, Policy] = {f"{bits} bit": Fixed(Rate(bits)) for bits in range(1, 9)}
    policies["controller"] = RateController(given.deadline)
    print(state_of_the_machine())
    print(f"{'':>12} {'total s':>9} {'upload s':>9} {'late %':>7} {'mean bits':>9} {'error':>8} {'changes':>8}")
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_trace(Path(folder) / f"{seed}.trace", wandering_rates(seed, 60, 5.0, 0.25e6, 8e6))
            for seed in range(given.clients)
        ]
        for name, policy in policies.items():
            links: dict[Hashable, TraceLink] = {
                client: TraceLink(path, RTT_S, 0.0) for client, path in enumerate(paths)
            }
            done = rounds_over(
                links, policy, RAW_VALUES, lambda rate, _: sizes[rate.bit_width], given.rounds, COMPUTE_S
            )
            widths = [[round_.rates[client].bit_width for round_ in done] for client in links]
            every = [bits for one in widths for bits in one]
            seconds = [s for round_ in done for s in round_.seconds.values()]
            late = sum(s > given.deadline for s in seconds) / len(seconds)
            changes = sum(a != b for one in widths for a, b in pairwise(one)) / len(widths)
            print(
                f"{name:>12} {done[-1].began_s + done[-1].upload_s:>9.1f} {sum(r.upload_s for r in done):>9.1f} "
                f"{100 * late:>7.1f} {sum(every) / len(every):>9.2f} "
                f"{sum(errors[bits] for bits in every) / len(every):>8.4f} {changes:>8.1f}"
            )


if __name__ == "__main__":
    main()
