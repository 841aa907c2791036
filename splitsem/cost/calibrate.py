"""Calibrating a table of isolated units: whole deployed networks, timed end to end on the same machine."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from splitsem.cost.branch_chain import Chain
from splitsem.cost.branch_lut import BranchLut
from splitsem.cost.calibration import Calibration, ChainTime
from splitsem.cost.measure import Timing, timed_s
from splitsem.device import Device

_MIN_REPEATS = 3


@torch.inference_mode()
def calibrate(
    chain: Chain,
    lut: BranchLut,
    device: Device,
    choices: Sequence[Sequence[int]] = (),
    budget_s: float = 10.0,
    repeats: int = 50,
) -> BranchLut:
    """``lut`` with a calibration: the networks of these choices of γ take turns; each one's median against its sum.

    Args:
        chain: the network.
        lut: its table, of this machine; ConfigError when it is another network's.
        device: where, with which precision and threads; as for the table.
        choices: γ of each unit, for each network; none: all branches beside each other, and all folded.
        budget_s: seconds for all of it, beyond which no turn is begun; at least three are made.
        repeats: the most turns.
    """
    specs = chain.facts()
    lut.check_fits(lut.model, specs)
    device.set_threads()
    wanted = [tuple(gammas) for gammas in choices] or [lut.whole_gammas(False), lut.whole_gammas(True)]
    networks = {
        gammas: device.place(nn.Sequential(*(chain.unit(row, gamma) for row, gamma in enumerate(gammas))).eval())
        for gammas in dict.fromkeys(wanted)
    }
    generator = torch.Generator().manual_seed(0)
    x = device.place_tensor(torch.randn((1, *specs[0].input_shape), generator=generator))
    times_s: dict[tuple[int, ...], list[float]] = {gammas: [] for gammas in networks}
    end_s = time.perf_counter() + budget_s
    for turn in tqdm(range(-1, repeats), desc="Timing whole networks", unit="turn"):  # the first one warms up
        if turn >= _MIN_REPEATS and time.perf_counter() > end_s:
            break
        for gammas, network in networks.items():
            took_s = timed_s(lambda network=network: network(x), device.torch_device)  # type: ignore[misc]
            if turn >= 0:
                times_s[gammas].append(took_s)
    chains = [ChainTime(gammas, Timing.of(times), lut.sum_s(gammas)) for gammas, times in times_s.items()]
    return replace(lut, calibration=Calibration(chains))
