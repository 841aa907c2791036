"""The rate controller against fixed bit widths by the seconds until a federated network reaches a validation score.

    python benchmarks/time_to_score.py [--rounds 50] [--target 0.95] [--deadlines 1 2 4] [--seeds 0 1 2]

Real training of digits: 10 clients, Dirichlet(0.3), quantised updates with error feedback, coded and decoded at the
width that the policy chose. Each client's uplink is a trace of its own that wanders between 20 kbit/s and 2 Mbit/s.
Time is simulated, so the machine's load does not matter: a round takes as long as its slowest upload, then a fixed
second of local computing. The table has the median of the seeds, or "not reached" where more than half of them fail.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from math import inf
from pathlib import Path

from federated import UNEVEN, made, run
from harness.ends import state_of_the_machine
from harness.rounds import Fixed, wandering_rates, write_trace
from splitsem.federated.in_process import ClientLinks
from splitsem.federated.rate_controller import ChoosesRates, Rate, RateController
from splitsem.federated.round_report import Row
from splitsem.links.trace import TraceLink

NUM_CLIENTS = 10
RTT_S = 0.05
COMPUTE_S = 1.0
LOW_BPS, HIGH_BPS = 20e3, 2e6
SMOOTHED = 3  # rounds over which the validation score is averaged: a lucky round is not a score that was reached


def links(folder: Path, seed: int) -> ClientLinks:
    """An uplink for each client, counted from 1; each link wanders by itself and changes every 5 s."""
    paths = {}
    for client in range(1, NUM_CLIENTS + 1):
        rates = wandering_rates(1000 * seed + client, 60, 5.0, LOW_BPS, HIGH_BPS)
        paths[client] = write_trace(folder / f"{seed}-{client}.trace", rates)
    return ClientLinks(lambda client: TraceLink(paths[client], RTT_S, 0.0), COMPUTE_S)


def trained(policy: ChoosesRates, links_of: ClientLinks, seed: int, num_rounds: int) -> list[Row]:
    """The rounds of one run."""
    settings = (f"seed={seed}", f"federated.partition.seed={seed}", f"federated.rounds={num_rounds}")
    ends = made(*UNEVEN, *settings, f"federated.num_clients={NUM_CLIENTS}", "codec=quant")
    ends.server.rates, ends.server.links = policy, links_of
    run(ends)
    return ends.server.rows


def seconds_to(rows: list[Row], target: float) -> float:
    """Seconds until the mean of the last rounds' validation scores first reaches ``target``; infinity if never."""
    times_s = accumulate(row["round/link_s"] + COMPUTE_S for row in rows)
    scores = [row["round/val_score"] for row in rows]
    for number, time_s in enumerate(times_s, start=1):
        if number >= SMOOTHED and statistics.fmean(scores[number - SMOOTHED : number]) >= target:
            return time_s
    return inf


def main() -> None:
    """Print a row for each policy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--deadlines", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    policies: dict[str, Callable[[], ChoosesRates]] = {
        f"{bits} bit": partial(Fixed, Rate(bits)) for bits in (1, 2, 4, 6, 8)
    }
    policies |= {f"within {s:g} s": partial(RateController, s) for s in given.deadlines}
    print(f"{state_of_the_machine()}; target {given.target}, {given.rounds} rounds, seeds {given.seeds}")
    print(f"{'':>12} {'seconds':>9} {'each seed':>30} {'a round s':>10} {'mean bits':>10} {'last score':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in policies.items():
            runs = [trained(make(), links(Path(folder), seed), seed, given.rounds) for seed in given.seeds]
            times_s = [seconds_to(rows, given.target) for rows in runs]
            every = [row for rows in runs for row in rows]
            median_s = statistics.median(times_s)
            print(
                f"{name:>12} {f'{median_s:.0f}' if median_s < inf else 'not reached':>9} "
                f"{' '.join(f'{s:.0f}' for s in times_s):>30} "
                f"{statistics.fmean(row['round/link_s'] for row in every) + COMPUTE_S:>10.2f} "
                f"{statistics.fmean(row['round/bit_width'] for row in every):>10.2f} "
                f"{statistics.fmean(rows[-1]['round/val_score'] for rows in runs):>11.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
