"""What frames take at both ends and on the line is found again from measurements of other networks and cuts."""

import numpy as np
import pytest

from splitsem.cost.fits import FrameFit, TimedFrames, fit_frames

TRUE = FrameFit(1.2, 1.4, 0.7e-3, 0.9e-3, 0.25e-3, 1.6e-7, 3000.0, 0.0, 0.0, 1)
SIZES = [3136, 50176, 12544, 12544, 4704, 4704, 2048, 1024, 40]
UNITS_S = {"fused": np.array([80, 50, 40, 35, 30, 30, 30, 25]) * 1e-6}
UNITS_S["parallel"] = 2.6 * UNITS_S["fused"]


def frames(truth: FrameFit, units_s: np.ndarray, cut: int, noise: np.random.Generator | None = None) -> TimedFrames:
    """What would be measured of a network at a cut, with 2 % of noise."""
    edge_s, server_s, size = units_s[:cut].sum(), units_s[cut:].sum(), SIZES[cut]
    stages = truth.stages(edge_s, size, server_s)
    errors = 1 + 0.02 * noise.standard_normal(2) if noise else np.ones(2)
    latency_s, cycle_s = np.array([truth.latency_s(edge_s, size, server_s), max(stages)]) * errors
    return TimedFrames(edge_s, server_s, size, latency_s, cycle_s)


def fitted(truth: FrameFit, seed: int) -> FrameFit:
    noise = np.random.default_rng(seed)
    cuts = [("fused", cut) for cut in (0, 1, 3, 5, 7, 8)] + [("parallel", cut) for cut in (0, 4, 8)]
    return fit_frames([frames(truth, UNITS_S[name], cut, noise) for name, cut in cuts])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "truth",
    [
        TRUE,
        FrameFit(1.0, 1.0, 0.5e-3, 0.5e-3, 0.3e-3, 8e-8, 0.0, 0.0, 0.0, 1),
        FrameFit(3.0, 1.0, 0.4e-3, 0.6e-3, -0.1e-3, 4e-7, 1500.0, 0.0, 0.0, 1),  # a slow edge behind a slow line
    ],
)
def test_networks_that_were_not_measured_are_predicted_within_a_tenth(truth, seed):
    fit = fitted(truth, seed)
    chosen_s = np.array([50, 20, 40, 15, 30, 10, 12, 25]) * 1e-6
    for cut in range(9):
        asked = frames(truth, chosen_s, cut)
        stages = fit.stages(asked.edge_s, asked.payload_bytes, asked.server_s)
        latency_s = fit.latency_s(asked.edge_s, asked.payload_bytes, asked.server_s)
        assert latency_s == pytest.approx(asked.latency_s, rel=0.1)
        assert max(stages) == pytest.approx(asked.cycle_s, rel=0.1)
    assert max(fit.latency_error, fit.cycle_error) < 0.05


def test_a_disturbed_job_moves_the_fit_little():
    cuts = [("fused", cut) for cut in (0, 1, 3, 5, 7, 8)] + [("parallel", cut) for cut in (0, 4, 8)]
    jobs = [frames(TRUE, UNITS_S[name], cut) for name, cut in cuts]
    late = jobs[2]
    jobs[2] = TimedFrames(late.edge_s, late.server_s, late.payload_bytes, 2 * late.latency_s, 2 * late.cycle_s)
    fit = fit_frames(jobs)
    for job in (jobs[0], jobs[5], jobs[7]):
        assert max(fit.stages(job.edge_s, job.payload_bytes, job.server_s)) == pytest.approx(job.cycle_s, rel=0.1)


def test_the_line_for_other_readers_holds_everything_but_the_halves():
    line = TRUE.line()
    assert line.delay_s == pytest.approx(0.7e-3 + 0.9e-3 + 0.25e-3)
    assert line.s_per_byte == TRUE.s_per_byte


def test_what_cannot_be_fitted_is_refused():
    good = [frames(TRUE, UNITS_S["fused"], cut) for cut in (0, 1, 3, 5)]
    with pytest.raises(ValueError, match="at least 4, of at least two sizes, got 3"):
        fit_frames(good[:3])
    with pytest.raises(ValueError, match="finite and not negative"):
        fit_frames([*good, TimedFrames(0.0, 0.0, 1.0, float("nan"), 1.0)])
    with pytest.raises(ValueError, match="edge_factor must be finite"):
        FrameFit(-1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1)
