"""Parts of learned codecs: levels and their bits, normalisations, attributions, against what is known by hand."""

from math import sqrt

import pytest
import torch

from splitsem.codecs.learned.blocks import Centres, Gdn, SnrAttention, bit_error_rate, normalise_power
from splitsem.codecs.learned.learned import Stage
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.training.codec_module import integrated_gradients


def code(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mapping", ["gray", "natural"])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_rounding_in_memory_is_what_the_words_say(bits, mapping):
    centres, y = Centres(bits, mapping), code(5, 40)
    with torch.no_grad():
        centres.levels.add_(0.01 * code(1 << bits))  # no longer in order or evenly spaced
    words = centres.words(y)
    assert int(words.max()) < 1 << bits
    assert torch.equal(centres.values(words), centres(y).values)
    nearest = (y[..., None] - centres.levels).abs().amin(-1)
    torch.testing.assert_close((centres.values(words) - y).abs(), nearest)


def test_neighbouring_levels_differ_in_one_bit_of_a_gray_code_only():
    words = Centres(4, "gray").words(torch.linspace(-3, 3, 400)[None])[0].long()
    steps = (words[1:] ^ words[:-1])[words[1:] != words[:-1]]
    assert len(steps) == 15
    assert all(int(step).bit_count() == 1 for step in steps)


def test_symbols_are_wrong_as_often_as_the_closed_form_says():
    """Three bits, BER 0.0786: 1 − (1 − p)³ = 0.2178 of the symbols."""
    torch.manual_seed(0)
    p, centres, y = bit_error_rate(0.0), Centres(3), code(200, 200)
    expected = 1 - (1 - p) ** 3
    wrong = (centres(y, p).values != centres(y).values).float().mean().item()
    assert abs(wrong - expected) < 4 * sqrt(expected * (1 - expected) / y.numel())


def test_expected_damage_is_the_mean_squared_difference_that_wrong_bits_make():
    torch.manual_seed(0)
    p, centres = 0.1, Centres(3)
    y = centres.levels.detach()[None].repeat(20_000, 1)  # every level exactly, so that nothing is rounded
    measured = (centres(y, p).values - y).square().mean(0)
    words = centres.word_of_rank
    differing = torch.tensor([[int(a ^ b).bit_count() for b in words] for a in words])
    chance = p**differing * (1 - p) ** (3 - differing)
    by_hand = (chance * (y[0][:, None] - y[0][None]).square()).sum(1)
    torch.testing.assert_close(measured, by_hand, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("ber", [0.0, 0.2])
def test_values_and_levels_both_get_a_gradient(ber):
    torch.manual_seed(0)
    centres, y = Centres(3), code(4, 64).requires_grad_()
    centres(y, ber).values.square().sum().backward()
    assert (centres.levels.grad != 0).all()
    assert y.grad is not None
    assert (y.grad != 0).float().mean() > 0.4  # a wrong bit in one of three cuts the tie to what was sent


def test_levels_that_may_not_learn_stay():
    centres = Centres(2, are_learned=False)
    centres(code(2, 8).requires_grad_()).values.sum().backward()
    assert centres.levels.grad is None


def test_random_levels_follow_the_seed_and_leave_the_rest_of_the_network_as_it_is():
    def made(seed: int, kind: str) -> SemanticNN:
        torch.manual_seed(seed)
        return SemanticNN((4, 8, 8), bits_per_symbol=4, decoder_width=8, centres=kind)

    one, same, other, even = made(0, "random"), made(0, "random"), made(1, "random"), made(0, "even")
    assert torch.equal(one.centres.levels, same.centres.levels)
    assert not torch.equal(one.centres.levels, other.centres.levels)
    assert bool((one.centres.levels.diff() > 0).all())
    assert one.centres.levels.diff().std() > 0.05  # not evenly spaced
    for name, value in one.state_dict().items():
        assert torch.equal(value, even.state_dict()[name]) == (name != "centres.levels"), name


def test_random_levels_travel_with_the_weights():
    sender, receiver = (SemanticNN((4, 8, 8), bits_per_symbol=2, decoder_width=8, centres="random") for _ in range(2))
    receiver.load_state_dict(sender.state_dict())
    z = code(1, 4, 8, 8)
    assert torch.equal(sender.eval()((z,))[0], receiver.eval().decode(sender.encode((z,)))[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Centres(9), "bits_per_symbol must be 1…8, got 9"),
        (lambda: Centres(2, "random"), "mapping must be one of gray, natural, got 'random'"),
        (lambda: Centres(2, start="sorted"), "start must be one of even, random, got 'sorted'"),
        (lambda: SemanticNN((4, 8, 8), centres="fixed"), "centres must be one of learned, even, random, got 'fixed'"),
        (lambda: Stage(1), "a stage needs one of feature_weight"),
        (lambda: Stage(1, task_weight=-1.0), "task_weight must be 0 or more, got -1.0"),
        (lambda: integrated_gradients(torch.sum, code(1, 2), 0), "num_steps must be at least 1, got 0"),
    ],
)
def test_bad_settings_name_the_setting_the_rule_and_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gdn_divides_by_the_pooled_energy_and_its_inverse_multiplies():
    x = code(2, 3, 4, 4)
    norm = (1 + 1e-6 + torch.einsum("ij,bjhw->bihw", 0.1 * torch.eye(3) + 1e-3, x.square())).sqrt()
    torch.testing.assert_close(Gdn(3)(x), x / norm)
    torch.testing.assert_close(Gdn(3, inverse=True)(x), x * norm)


def test_attention_scales_channels_differently_at_different_noise():
    torch.manual_seed(0)
    attention, x = SnrAttention(6), code(2, 6, 4, 4)
    quiet, loud = (attention(x, torch.full((2,), snr_db)) / x for snr_db in (7.0, -6.0))
    assert not torch.allclose(quiet, loud)
    for scale in (quiet, loud):
        assert ((scale > 0) & (scale < 1)).all()
        torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))


def test_power_is_one_for_each_sample():
    power = normalise_power(code(3, 50) * torch.tensor([[0.1], [1.0], [30.0]])).square().mean(1)
    torch.testing.assert_close(power, torch.ones(3))


def test_integrated_gradients_add_up_to_the_difference_of_the_loss():
    weight, y = code(6), code(4, 6)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return (values @ weight).tanh().sum()

    parts = integrated_gradients(loss, y, num_steps=200)
    torch.testing.assert_close(parts.sum(1), (y @ weight).tanh(), atol=1e-4, rtol=1e-4)
