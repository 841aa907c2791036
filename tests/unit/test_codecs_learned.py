"""Learned codecs before any training: both paths agree, exact sizes, wrong bits, wrong tensors, gradients."""

import pytest
import torch
from torch import Tensor

from splitsem.codecs.learned.adjscc import Adjscc
from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.learned.crbq import CrBq
from splitsem.codecs.learned.deepcod import DeepCod
from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.klt import Klt
from splitsem.codecs.learned.learned import LearnedCodec, LearnedId
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.codecs.learned.symbol_codec import SymbolCodec
from splitsem.errors import ConfigError, PayloadError

SHAPE = (6, 7, 9)  # odd sizes: strides must not need multiples
SYMBOL_CODECS: dict[str, tuple[type[SymbolCodec], dict, int]] = {  # with the bits of a sample's code
    "semanticnn": (SemanticNN, {"decoder_width": 8}, 3 * 3 * 2 * 3),
    "semanticnn deep": (
        SemanticNN,
        {"decoder_width": 8, "encoder_widths": [5, 7, 6], "code_channels": 4, "bits_per_symbol": 1},
        4 * 2 * 3,
    ),
    "bottleneck": (Bottleneck, {"code_channels": 3, "bits_per_symbol": 5, "widths": [4]}, 5 * 3 * 2 * 3),
    "deepcod": (DeepCod, {"decoder_width": 8, "snr_range_db": (-6.0, 7.0)}, 3 * 4 * 4 * 5),
    "deepcod coarse": (DeepCod, {"decoder_width": 4, "stride": 4, "code_channels": 5}, 3 * 5 * 2 * 3),
    "adjscc": (Adjscc, {"width": 4, "code_channels": 5}, 4 * 5 * 1 * 2),
    "agilenn": (
        AgileNN,
        {"num_classes": 4, "feature_channels": 5, "local_channels": 2, "code_channels": 3, "decoder_width": 4},
        3 * 3 * 2 * 3,
    ),
}
CODECS: dict[str, tuple[type[LearnedCodec], dict]] = {
    name: (cls, settings) for name, (cls, settings, _) in SYMBOL_CODECS.items()
}
CODECS |= {
    "entropic_student": (EntropicStudent, {"width": 8, "code_channels": 5}),
    "klt": (Klt, {}),
    "klt of a still camera": (Klt, {"centre": "position", "code_channels": 4, "step": 0.5}),
    "crbq": (CrBq, {"width": 4}),
    "crbq fine": (CrBq, {"width": 4, "stride": 1, "bit_width": 3}),
}


def build(name: str, seed: int = 0) -> LearnedCodec:
    torch.manual_seed(seed)
    cls, settings = CODECS[name]
    codec = cls(tensor_shape=SHAPE, **settings)
    codec.calibrate([features(64, seed=9)])
    return codec.eval()


def features(batch: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_give_what_forward_says(name, dtype):
    codec, z = build(name), features().to(dtype)
    (z_hat,) = codec.decode(codec.encode((z,)))
    assert (z_hat.shape, z_hat.dtype) == (z.shape, z.dtype)
    assert torch.equal(z_hat, codec((z,))[0])


@pytest.mark.parametrize("name", CODECS)
def test_a_fresh_decoder_needs_the_bytes_and_the_weights_only(name):
    codec, other = build(name), build(name, seed=5)
    payload = codec.encode((features(),))
    other.load_state_dict(codec.state_dict())
    assert torch.equal(other.decode(payload)[0], codec.decode(payload)[0])


@pytest.mark.parametrize("name", CODECS)
def test_a_batch_decodes_to_what_its_samples_alone_decode_to(name):
    codec, z = build(name), features()
    (together,) = codec.decode(codec.encode((z,)))
    alone = torch.cat([codec.decode(codec.encode((sample[None],)))[0] for sample in z])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CODECS)
def test_training_sends_gradients_to_every_weight_on_the_device(name):
    torch.manual_seed(0)
    codec = build(name).train()
    coded = codec.code(features(), codec.draw_snr_db())
    loss = coded.z_hat.square().mean()
    if coded.local is not None:
        loss = loss + codec.combine(coded.local, torch.ones_like(coded.local)).square().mean()
    (loss if coded.rate_bits is None else loss + coded.rate_bits).backward()
    for module in codec.device_modules():
        for parameter_name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, parameter_name
            assert bool(parameter.grad.any()), parameter_name


@pytest.mark.parametrize("name", CODECS)
def test_the_devices_share_of_the_weights_is_counted_and_is_not_all(name):
    codec = build(name)
    everything = sum(tensor.nbytes for tensor in codec.state_dict().values())
    assert 0 < codec.encoder_bytes < everything


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "z",
    [
        (features()[:, :5],),
        (features(), features()),
        (),
        (features().long(),),
        (features()[0],),
        (features()[:0],),
    ],
)
def test_other_tensors_are_refused_with_both_shapes(name, z):
    with pytest.raises(ConfigError, match=r"built for one floating-point tensor \(batch, 6, 7, 9\), got "):
        build(name).encode(z)


@pytest.mark.parametrize("name", CODECS)
def test_cut_or_foreign_payloads_are_payload_errors(name):
    codec = build(name)
    payload = codec.encode((features(),))
    stranger = payload[:3] + bytes([200]) + payload[4:]
    for bad in (b"", payload[:-1], payload + b"\0", stranger, b"xx" + payload[2:]):
        with pytest.raises(PayloadError):
            codec.decode(bad)


@pytest.mark.parametrize("name", SYMBOL_CODECS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_code_of_symbols_has_exactly_its_bits(name, batch):
    payload = build(name).encode((features(batch),))
    num_bits = batch * SYMBOL_CODECS[name][2]
    assert len(payload) - build(name).protected_bytes(payload) == -(-num_bits // 8)
    assert build(name).protected_bytes(payload) <= 11


@pytest.mark.parametrize("name", SYMBOL_CODECS)
def test_wrong_bits_behind_the_header_change_values_and_nothing_else(name):
    codec = build(name)
    payload = codec.encode((features(1),))
    start = codec.protected_bytes(payload)
    (clean,) = codec.decode(payload)
    for position in range(start, len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= 0xA5
        (z_hat,) = codec.decode(bytes(damaged))
        assert z_hat.shape == clean.shape
        assert bool(z_hat.isfinite().all())
        assert not torch.equal(z_hat, clean)
    for position in range(start):
        damaged = bytearray(payload)
        damaged[position] ^= 0x10
        with pytest.raises(PayloadError):
            codec.decode(bytes(damaged))


@pytest.mark.parametrize("name", SYMBOL_CODECS)
def test_training_meets_wrong_bits_and_evaluation_none(name):
    torch.manual_seed(0)
    codec, z = build(name), features()
    assert torch.equal(codec((z,))[0], codec((z,))[0])
    codec.train()
    assert not torch.equal(codec.code(z, -6.0).code, codec.code(z, -6.0).code)
    assert (codec.draw_snr_db() is None) == (codec.snr_range_db is None)


def test_the_decoder_is_told_the_links_ratio_within_what_it_learned():
    codec = build("semanticnn")
    payload = codec.encode((features(1),))
    z_hats = {}
    for snr_db in (None, 7.0, 40.0, -6.0, -40.0):
        codec.snr_db = snr_db
        z_hats[snr_db] = codec.decode(payload)[0]
    assert torch.equal(z_hats[None], z_hats[7.0])
    assert torch.equal(z_hats[40.0], z_hats[7.0])
    assert torch.equal(z_hats[-40.0], z_hats[-6.0])
    assert not torch.equal(z_hats[-6.0], z_hats[7.0])


@pytest.mark.parametrize("name", SYMBOL_CODECS)
def test_payloads_decoded_together_are_what_each_gives_alone(name):
    codec, z = build(name), features(4)
    payloads = [codec.encode((sample[None],)) for sample in z]
    payloads[1] = b"not one"
    payloads[2] = codec.encode((z[2:3].bfloat16(),))
    seen_db = [None, None, 3.0, -4.0]
    together = codec.decode_all(payloads, seen_db)
    assert together[1] is None
    for place in (0, 2, 3):
        codec.snr_db = seen_db[place]
        (alone,) = codec.decode(payloads[place])
        assert together[place][0].dtype == alone.dtype
        torch.testing.assert_close(together[place][0], alone, atol=1e-4, rtol=1e-2)


def test_the_numbers_of_learned_codecs_leave_room_for_others_and_are_their_own():
    ids = [cls.codec_id for cls, _ in CODECS.values()]
    assert all(128 <= number < 160 for number in ids)
    assert len({cls: cls.codec_id for cls, _ in CODECS.values()}) == len(set(ids))
    assert set(ids) <= set(LearnedId)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_shape": (4, 8)}, r"tensor_shape must be \(channels, height, width\), each at least 1, got \(4, 8\)"),
        ({"snr_range_db": (3.0, -3.0)}, r"snr_range_db must be \(least, largest\) in dB, got"),
        ({"encoder_widths": [8]}, "encoder_widths must be none, or two or more"),
        ({"code_channels": 0}, "code_channels must be at least 1, got 0"),
    ],
)
def test_bad_settings_of_semanticnn_name_the_setting_the_rule_and_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        SemanticNN(**{"tensor_shape": SHAPE, **settings})
