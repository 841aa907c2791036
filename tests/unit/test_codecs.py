"""Every codec: round trips, what it refuses, what its settings do."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.codecs.picture import Jpeg, Pixels, Png, Webp
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError

ENTROPIES = ("none", "zstd", "rans", "context")


def relu_map(*shape: int, seed: int = 0) -> Tensor:
    """A smooth, zero-inflated feature map."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1).sub(0.15).relu()


def test_identity_is_exact_even_for_nan_and_infinity() -> None:
    z = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45])
    (z_hat,) = Identity().decode(Identity().encode((z,)))
    assert torch.equal(z.view(torch.int32), z_hat.view(torch.int32))


def test_half_precision_saturates_finite_values_and_keeps_infinities() -> None:
    (z_hat,) = HalfPrecision().decode(HalfPrecision().encode((torch.tensor([1e6, -1e6, float("inf"), 1.5]),)))
    assert z_hat.tolist() == [65504.0, -65504.0, float("inf"), 1.5]


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_lower_bit_width_sends_fewer_bytes(entropy: str) -> None:
    z = relu_map(1, 8, 24, 24)
    sizes = [len(Quantise(bits, clipping="minmax", entropy=entropy).encode((z,))) for bits in range(1, 17)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("z", [relu_map(1, 4, 20, 20), torch.randn(2, 500, generator=torch.Generator().manual_seed(1))])
def test_more_bits_never_give_more_error_on_minmax(z: Tensor) -> None:
    errors = [(Quantise(bits, clipping="minmax")((z,))[0] - z).square().mean().item() for bits in range(1, 15)]
    assert errors == sorted(errors, reverse=True)


def test_mse_clipping_has_the_least_squared_error_at_low_bit_widths() -> None:
    z = relu_map(1, 8, 24, 24)
    for bits in (1, 2, 3, 4):
        errors = {c: (Quantise(bits, clipping=c)((z,))[0] - z).square().mean() for c in ("minmax", "percentile", "mse")}
        assert errors["mse"] == min(errors.values())


def test_an_attention_mask_keeps_its_values_at_every_bit_width() -> None:
    z = torch.zeros(1, 1, 16, 16)
    z[..., 10:] = torch.finfo(torch.float32).min
    for bit_width in (1, 4, 8):
        codec = Quantise(bit_width, clipping="mse")
        assert torch.equal(codec.decode(codec.encode((z,)))[0], z)


def test_relu_features_use_the_whole_range_of_integers() -> None:
    z = torch.linspace(0, 3, 400)[None]
    z_hat = Quantise(4, clipping="minmax")((z,))[0]
    assert z_hat.unique().numel() == 16
    assert z_hat.max().item() == pytest.approx(3.0, rel=1e-6)


def test_percentile_clipping_keeps_activity_that_is_rarer_than_the_percentile() -> None:
    z = torch.zeros(1, 10_000)
    z[0, 7] = 2.0
    assert Quantise(8, clipping="percentile", percentile=99.0)((z,))[0][0, 7].item() == pytest.approx(2.0)


def test_channel_granularity_serves_channels_of_different_scale() -> None:
    z = relu_map(1, 4, 16, 16) * torch.tensor([1e-3, 1.0, 10.0, 1e3]).reshape(1, 4, 1, 1)
    by_tensor, by_channel = (Quantise(8, granularity=g)((z,))[0] for g in ("tensor", "channel"))
    assert (by_tensor[0, 0] == 0).all()
    torch.testing.assert_close(by_channel[0, 0], z[0, 0], atol=z[0, 0].max().item() / 255, rtol=0)


@pytest.mark.parametrize(
    "codec",
    [
        Quantise(3),
        Quantise(4, granularity="channel", entropy="rans"),
        Quantise(2, clipping="percentile", percentile=95),
        TopK(0.1),
    ],
)
def test_a_batch_decodes_to_what_its_samples_alone_decode_to(codec: Codec) -> None:
    z = torch.cat([relu_map(1, 4, 9, 9, seed=s) * 10**s for s in range(3)])
    (together,) = codec.decode(codec.encode((z,)))
    alone = torch.cat([codec.decode(codec.encode((sample[None],)))[0] for sample in z])
    assert torch.equal(together, alone)


def test_topk_keeps_the_largest_magnitudes_and_nothing_else() -> None:
    z = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    (z_hat,) = TopK(0.1).decode(TopK(0.1).encode((z,)))
    for row, row_hat in zip(z, z_hat, strict=True):
        kept = row_hat.nonzero().flatten()
        assert torch.equal(kept, row.abs().topk(5).indices.sort().values)
        assert torch.equal(row_hat[kept], row[kept])


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_topk_sends_fewer_bytes_for_fewer_or_coarser_values(entropy: str) -> None:
    z = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    by_ratio = [len(TopK(ratio, entropy=entropy).encode((z,))) for ratio in (0.01, 0.05, 0.2, 1.0)]
    assert by_ratio == sorted(by_ratio)
    plain = len(TopK(0.2, entropy=entropy).encode((z,)))
    half = len(TopK(0.2, values="float16", entropy=entropy).encode((z,)))
    quantised = len(TopK(0.2, values="quantised", bit_width=4, entropy=entropy).encode((z,)))
    assert quantised < half < plain


def test_sparse_positions_cost_less_than_their_bitmap() -> None:
    z = torch.zeros(1, 20_000)
    z[0, torch.randperm(20_000, generator=torch.Generator().manual_seed(0))[:50]] = 1.0
    values_bytes, bitmap_bytes = 50 * 4, 20_000 // 8
    assert len(TopK(0.0025, entropy="none").encode((z,))) < values_bytes + bitmap_bytes / 10


@pytest.mark.parametrize("codec", [Webp(lossless=True), Png(), Pixels()])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_pictures_keep_eight_bit_pixels_exactly(channels: int, codec: Codec) -> None:
    z = torch.randint(0, 256, (2, channels, 9, 13), generator=torch.Generator().manual_seed(0)).float() / 255
    assert torch.equal(codec.decode(codec.encode((z,)))[0], z)


@pytest.mark.parametrize("codec_class", [Jpeg, Webp])
def test_picture_quality_trades_bytes_for_error(codec_class: type[Jpeg] | type[Webp]) -> None:
    z = relu_map(1, 3, 64, 64).clamp(max=1)
    low, high = codec_class(20), codec_class(95)
    assert len(low.encode((z,))) < len(high.encode((z,)))
    assert (low((z,))[0] - z).square().mean() > (high((z,))[0] - z).square().mean()


@pytest.mark.parametrize(
    "z", [torch.rand(1, 4, 8, 8), torch.rand(3, 8, 8), torch.rand(1, 3, 8, 8) * 2, torch.rand(1, 3, 8, 8).double()]
)
def test_picture_codecs_refuse_what_is_no_picture_and_name_the_point(z: Tensor) -> None:
    with pytest.raises(ConfigError, match="split point `input`"):
        Jpeg().encode((z,))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("codec", [Quantise(8), TopK(0.5), TopK(0.5, values="quantised")])
def test_quantisers_refuse_values_that_are_not_finite(codec: Codec, bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        codec.encode((torch.tensor([[1.0, bad]]),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantise(17), "bit_width must be 1…16, got 17"),
        (lambda: Quantise(0), "bit_width must be 1…16, got 0"),
        (
            lambda: Quantise(8, entropy="huffman"),
            "entropy must be one of none, zstd, rans, context, auto, got 'huffman'",
        ),
        (lambda: Quantise(8, granularity="row"), "granularity must be one of tensor, channel, got 'row'"),
        (lambda: Quantise(8, clipping="no"), "clipping must be one of auto, minmax, percentile, mse, got 'no'"),
        (lambda: Quantise(8, percentile=20), "percentile must be above 50"),
        (lambda: TopK(0.0), "keep_ratio must be above 0 and at most 1, got 0.0"),
        (lambda: TopK(0.1, values="int"), "values must be one of"),
        (lambda: Jpeg(0), "quality must be 1…100, got 0"),
    ],
)
def test_bad_settings_name_the_setting_the_rule_and_the_value(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_pass_straight_through_inside_the_clipping_range_only() -> None:
    z = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([50.0])])[None].requires_grad_()
    Quantise(4, clipping="percentile", percentile=99.5)((z,))[0].sum().backward()
    assert z.grad is not None
    assert z.grad[0, 500] == 1
    assert z.grad[0, 999] == 0


def test_topk_gradients_reach_the_kept_elements_only() -> None:
    z = torch.tensor([[1.0, -5.0, 0.5, 4.0]], requires_grad=True)
    TopK(0.5)((z,))[0].sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[0, 1, 0, 1]]


def test_a_fresh_decoder_in_another_process_gives_the_same_tensors(tmp_path: Path) -> None:
    z = (relu_map(2, 4, 40, 120), torch.arange(5))  # large enough for static tables
    codec = Quantise(6)
    payload = codec.encode(z)
    (tmp_path / "payload").write_bytes(payload)
    script = (
        "import sys, torch; from splitsem.codecs.quantise import Quantise;"
        "z = Quantise(1, entropy='none').decode(open(sys.argv[1], 'rb').read());"
        "torch.save(list(z), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "payload", tmp_path / "z"], check=True)
    elsewhere = torch.load(tmp_path / "z", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(codec.decode(payload), elsewhere, strict=True))


CONF = Path(__file__).parents[2] / "conf" / "codec"


@pytest.mark.parametrize("option", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_codec_option_is_built_from_its_file_and_carries_a_picture(option: str) -> None:
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        cfg = compose(overrides=[f"+codec={option}"]).codec
    facts = {"tensor_shape": (3, 16, 16), "num_classes": 10}
    named = inspect.signature(get_object(cfg["_target_"])).parameters
    codec = instantiate(cfg, **{name: fact for name, fact in facts.items() if name in named}, _convert_="all")
    z = relu_map(1, 3, 16, 16).clamp(max=1)
    (z_hat,) = codec.decode(codec.encode((z,)))
    assert z_hat.shape == z.shape
    if option.startswith("quant") and option != "quant":
        assert codec.bit_width == int(option.removeprefix("quant"))
