"""Properties of every codec over random tensors, and of every decoder over random damage."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.picture import Jpeg, Webp
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import PayloadError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)
ENTROPIES = ("none", "zstd", "rans", "context")
QUICK = settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

shapes = hnp.array_shapes(min_dims=0, max_dims=5, max_side=6)
values = st.floats(-1e4, 1e4, width=32)
codecs = st.one_of(
    st.builds(Identity),
    st.builds(HalfPrecision),
    st.builds(
        Quantise,
        bit_width=st.integers(1, 16),
        granularity=st.sampled_from(("tensor", "channel")),
        clipping=st.sampled_from(("auto", "minmax", "percentile", "mse")),
        entropy=st.sampled_from(ENTROPIES),
    ),
    st.builds(
        FixedLength,
        bit_width=st.integers(1, 16),
        granularity=st.sampled_from(("tensor", "channel")),
        mapping=st.sampled_from(("natural", "gray")),
        order=st.sampled_from(("symbols", "planes")),
    ),
    st.builds(
        TopK,
        keep_ratio=st.floats(0.01, 1.0),
        values=st.sampled_from(("float32", "float16", "quantised")),
        bit_width=st.integers(1, 16),
        entropy=st.sampled_from(ENTROPIES),
    ),
)


@st.composite
def tensors(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = FLOATS + INTEGERS) -> Tensor:
    """A tensor of any dtype and shape, at times constant or not contiguous."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(shapes)
    if dtype in FLOATS:
        z = torch.from_numpy(np.asarray(draw(hnp.arrays(np.float32, shape, elements=values)))).to(dtype)
    else:
        z = torch.from_numpy(np.asarray(draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 120))))).to(dtype)
    return z.transpose(0, -1) if z.dim() >= 2 and draw(st.booleans()) else z


@QUICK
@given(codec=codecs, z=st.lists(tensors(), max_size=3))
def test_round_trip_keeps_shapes_dtypes_and_integers_and_equals_forward(codec: Codec, z: list[Tensor]) -> None:
    z_hat = codec.decode(codec.encode(tuple(z)))
    assert len(z_hat) == len(z)
    for sent, received, approximated in zip(z, z_hat, codec(tuple(z)), strict=True):
        assert received.shape == sent.shape
        assert received.dtype == sent.dtype
        assert torch.equal(received, approximated)
        if isinstance(codec, Identity) or not sent.is_floating_point():
            assert torch.equal(received, sent)


@QUICK
@given(z=tensors((torch.float32,)), bit_width=st.integers(1, 16), granularity=st.sampled_from(("tensor", "channel")))
def test_quantiser_error_is_at_most_half_a_step_and_zero_is_exact(z: Tensor, bit_width: int, granularity: str) -> None:
    z_hat = Quantise(bit_width, granularity=granularity, clipping="minmax")((z,))[0]
    per_channel = granularity == "channel" and z.dim() >= 4
    rows = z.shape[0] * z.shape[1] if per_channel else z.shape[0] if z.dim() >= 2 else 1
    x, x_hat = z.reshape(rows, -1).double(), z_hat.reshape(rows, -1).double()
    step = (x.amax(1).clamp(min=0) - x.amin(1).clamp(max=0)) / (2**bit_width - 1)
    slack = 1.01 * (1 + 2**-7 if per_channel else 1)  # a channel's scale is rounded up to bfloat16
    assert ((x - x_hat).abs() <= (step * slack / 2 + 1e-37)[:, None]).all()
    assert (x_hat[x == 0] == 0).all()


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 3.4e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_extreme_magnitudes_stay_finite(scale: float, dtype: torch.dtype, granularity: str) -> None:
    z = (
        (torch.tensor([-1.0, -0.3, 0.0, 0.9]).reshape(1, 1, 2, 2).double() * scale)
        .to(dtype)
        .clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    )
    for bit_width in (1, 2, 8, 16):
        codec = Quantise(bit_width, granularity=granularity)
        (z_hat,) = codec.decode(codec.encode((z,)))
        assert z_hat.isfinite().all()
        assert torch.equal(z_hat, codec((z,))[0])


def _picture() -> Tensor:
    return torch.linspace(0, 1, 3 * 20 * 16).reshape(1, 3, 20, 16)


def _sparse(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).sub(0.5).relu()


# every way of coding a body: (codec, what it sends)
TARGETS: dict[str, tuple[Codec, tuple[Tensor, ...]]] = {
    "identity": (Identity(), (_sparse(2, 5), torch.arange(3), torch.tensor([True, False]))),
    "fp16": (HalfPrecision(), (_sparse(2, 5),)),
    **{f"quant-{e}": (Quantise(5, entropy=e), (_sparse(1, 4, 9, 9), torch.arange(3))) for e in ENTROPIES},
    **{f"quant-channel-{e}": (Quantise(10, "channel", entropy=e), (_sparse(1, 4, 9, 9),)) for e in ENTROPIES},
    **{f"quant-static-{e}": (Quantise(4, entropy=e), (_sparse(1, 12, 60, 60),)) for e in ("rans", "context")},
    **{f"topk-{e}": (TopK(0.2, entropy=e), (_sparse(1, 4, 9, 9),)) for e in ENTROPIES},
    **{f"topk-gaps-{e}": (TopK(0.01, values="quantised", entropy=e), (_sparse(1, 4, 40, 40),)) for e in ENTROPIES},
    "jpeg": (Jpeg(), (_picture(),)),
    "webp": (Webp(), (_picture(),)),
    "webp-lossless": (Webp(lossless=True), (_picture(),)),
}
PAYLOADS = {name: codec.encode(z) for name, (codec, z) in TARGETS.items()}


@st.composite
def damages(draw: st.DrawFn, payload: bytes) -> bytes:
    """Bytes overwritten (the header's likelier), cut out, cut off or put in."""
    data = bytearray(payload)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(40, len(data))), st.integers(0, len(data))))
        kind = draw(st.sampled_from(("overwrite", "flip", "delete", "insert", "truncate")))
        if kind == "overwrite":
            new = draw(st.binary(min_size=1, max_size=6))
            data[at : at + len(new)] = new
        elif kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 5))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=5))
        elif kind == "truncate":
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_random_damage_is_a_payload_error(name: str) -> None:
    codec, payload = TARGETS[name][0], PAYLOADS[name]

    @settings(QUICK, max_examples=40)
    @given(damages(payload))
    def check(damaged: bytes) -> None:
        if damaged != payload:
            with pytest.raises(PayloadError):
                codec.decode(damaged)

    check()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("error")
def test_damage_behind_a_right_checksum_is_a_payload_error_or_bounded_tensors(name: str) -> None:
    codec, payload = TARGETS[name][0], PAYLOADS[name]

    @settings(QUICK, max_examples=250)
    @given(damages(payload[:-4]))
    def check(content: bytes) -> None:
        forged = content + zlib.crc32(content).to_bytes(4, "little")
        try:
            z_hat = codec.decode(forged)
        except PayloadError:
            return
        assert sum(t.numel() for t in z_hat) <= 1024 * len(forged)

    check()


@QUICK
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_payload_error(data: bytes) -> None:
    for codec, _ in TARGETS.values():
        with pytest.raises(PayloadError):
            codec.decode(data)
