"""check_codec: what every codec promises, tried on tensors of many shapes and on damaged bytes."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from splitsem.check import codec_attacks as attacks
from splitsem.check.codec_attacks import Trial, clones, in_words
from splitsem.check.promises import Promises, UnkeptError, expect
from splitsem.codecs.codec import Codec, Tensors
from splitsem.errors import ConfigError

_SLACK = 1e-5  # of the range of the values, or one step of the dtype


def check_codec(codec: Codec | Callable[[], Codec], tensor_shape: Sequence[int] | None = None) -> tuple[str, ...]:
    """Try every promise of a codec.

    Args:
        codec: a codec, or what makes one, e.g. its class. It is put in eval mode.
        tensor_shape: shape of the crossing tensor for one sample that a learned codec was built for; None for the
            codec's own attribute of that name.

    Returns:
        The promises, each a sentence, all of them kept.

    Raises:
        ContractError: a line for each promise that is broken.

    >>> from splitsem.codecs.tensorwise import Identity
    >>> check_codec(Identity)[0]
    'the constructor makes a Codec'
    """
    promises = Promises("a codec")
    made, fresh = promises.twins(codec, Codec, lambda one: bool(one.state_dict()))
    made.eval(), fresh.eval()
    pristine = copy.deepcopy(fresh)
    shape = tensor_shape if tensor_shape is not None else getattr(made, "tensor_shape", None)
    promises.hold_once("name is a text that is not empty", partial(_name, made))
    promises.hold_once("is_learned is said by a LearnedCodec alone", partial(_is_learned, made))
    promises.hold_once("encoder_bytes is a whole number, 0 or more", partial(_encoder_bytes, made))
    trials = _taken(promises, made, _examples(shape if made.is_learned else None))
    trials = promises.hold(
        "decode gives back as many tensors, of the same shapes and dtypes, on the CPU",
        partial(_round_trip, made),
        trials,
    )
    hold = partial(promises.hold, cases=trials)
    stable = hold("the same tensors give the same bytes twice", partial(_is_stable, made))
    promises.hold("a fresh codec makes the same bytes", partial(_is_stable, fresh), stable)
    hold("a fresh codec decodes to the same tensors from the bytes alone", partial(_fresh_decodes, made, pristine))
    hold("encode and forward leave their tensors as they are", partial(_leaves, made))
    hold("encode works in inference mode", partial(_in_inference_mode, made))
    promises.hold("encode takes tensors that are not contiguous", partial(_not_contiguous, made), stable)
    alike = hold("forward gives tensors of the same shapes and dtypes", partial(_forward_kind, made))
    if not made.is_learned:
        promises.hold("forward gives what decode gives of encode's bytes", partial(_forward_equals, made), alike)
    if made.is_samplewise:
        promises.hold(
            "forward makes of a batch what it makes of each sample alone", partial(_is_samplewise, made), alike
        )
    floats = {name: trial for name, trial in alike.items() if any(t.is_floating_point() for t in trial.z)}
    promises.hold("gradients pass through forward", partial(_gradients, made), floats)
    whole = hold("protected_bytes is a whole number from 0 to the payload's length", partial(_protected, made))
    hold("combine takes local_output, with and without the server's output", partial(_combines, made))
    damages = attacks.damages(list(whole.values()))
    kept = promises.hold(
        "damaged payloads raise PayloadError and nothing else", partial(attacks.refuses, made), damages
    )
    if not made.is_framed:
        itself = (
            "decode raises PayloadError and nothing else for damaged bytes behind a right checksum, or gives tensors"
        )
        promises.hold(itself, partial(attacks.refuses_itself, made), attacks.damages(list(whole.values()), bare=True))
    if kept.keys() == damages.keys():
        promises.hold(
            "decode_all gives None for a damaged payload and tensors for a whole one",
            partial(attacks.reads_all, made),
            kept,
        )
        is_bounded = partial(attacks.is_bounded, made)
        forged = "a forged payload raises PayloadError or gives what is expected, for at most 50 × an honest one's time"
        promises.hold(forged, is_bounded, attacks.forged(trials))
        larger = "a payload of larger tensors than expected raises PayloadError; decode unpacks expected.most_bytes"
        promises.hold(larger, is_bounded, attacks.larger(made, trials))
        bomb = "bytes that unpack to 64 MB raise PayloadError; decode unpacks expected.most_bytes"
        promises.hold(bomb, is_bounded, attacks.exploding(trials))
    return promises.finish()


def _is_learned(codec: Codec) -> None:
    from splitsem.codecs.learned.learned import LearnedCodec

    if codec.is_learned != isinstance(codec, LearnedCodec):
        raise UnkeptError(
            f"is_learned is {codec.is_learned}, and the class is{' not' * codec.is_learned} a LearnedCodec"
        )


def _examples(shape: Sequence[int] | None) -> list[Tensors]:
    """Crossing tensors to try: of the one shape of a learned codec, or of many."""
    draw = torch.Generator().manual_seed(0)

    def features(*size: int) -> Tensor:
        return torch.randn(size, generator=draw).sub(0.3).relu()

    if shape is not None:
        one, three = features(1, *shape), features(3, *shape)
        return [(one,), (three,), (one.half(),), (one.bfloat16(),)]
    map_, row = features(1, 16, 8, 8), features(1, 8)
    picture = torch.rand(1, 3, 16, 16, generator=draw)
    whole_numbers = torch.arange(12).reshape(1, 12)
    number = torch.tensor(0.75)
    return [
        *((t,) for t in (row, map_, features(3, 4, 6, 6), picture, number, number.reshape(1, 1))),
        (row, features(1, 4, 5, 7)),
        *((t,) for t in (map_.half(), map_.bfloat16(), whole_numbers)),
        (map_, whole_numbers),
    ]


def _taken(promises: Promises, codec: Codec, examples: list[Tensors]) -> dict[str, Trial]:
    """The payloads of the examples that the codec takes; the others it refuses by ValueError or ConfigError."""
    trials: dict[str, Trial] = {}
    refused: list[str] = []

    def take(z: Tensors) -> None:
        try:
            code = codec.encode(clones(z))
        except (ValueError, ConfigError) as exc:
            expect(str(exc).strip() and "\n" not in str(exc), f"refused by {type(exc).__name__} with {str(exc)!r}")
            refused.append(f"{in_words(z)}: {exc}")
            return
        expect(isinstance(code, bytes), f"got {type(code).__name__}")
        trials[in_words(z)] = Trial(z, codec.payload(clones(z)))

    def takes_some() -> None:
        expect(trials, f"it refuses all {len(examples)}; {refused[0] if refused else ''}")

    cases = {in_words(z): z for z in examples}
    kept = promises.hold(
        "encode returns bytes, or refuses tensors by a ValueError or ConfigError of one line", take, cases
    )
    if kept.keys() == cases.keys():
        promises.hold_once("encode takes some of the tensors that were tried", takes_some)
    return trials


def _name(codec: Codec) -> None:
    expect(isinstance(codec.name, str) and codec.name, f"got {codec.name!r}")


def _encoder_bytes(codec: Codec) -> None:
    size = codec.encoder_bytes
    expect(isinstance(size, int) and size >= 0, f"got {size!r}")


def _round_trip(codec: Codec, trial: Trial) -> None:
    z_hat = codec.read(trial.payload)
    expect(isinstance(z_hat, tuple), f"got {type(z_hat).__name__}, not a tuple")
    expect(all(isinstance(t, Tensor) for t in z_hat), "got something that is no tensor")
    expect(in_words(z_hat) == in_words(trial.z), f"got {in_words(z_hat)}")
    expect(all(t.device.type == "cpu" for t in z_hat), f"got tensors on {', '.join(str(t.device) for t in z_hat)}")


def _is_stable(codec: Codec, trial: Trial) -> None:
    again = codec.payload(trial.tensors())
    expect(again == trial.payload, f"got other bytes ({len(again)} in place of {len(trial.payload)})")


def _fresh_decodes(codec: Codec, pristine: Codec, trial: Trial) -> None:
    z_hat = codec.read(trial.payload)
    elsewhere = copy.deepcopy(pristine).read(trial.payload)
    expect(_are_equal(z_hat, elsewhere), "got other tensors")


def _are_equal(z: Tensors, other: Tensors) -> bool:
    return in_words(z) == in_words(other) and all(map(torch.equal, z, other))


def _leaves(codec: Codec, trial: Trial) -> None:
    for call in (codec.encode, codec):
        z = trial.tensors()
        call(z)
        expect(_are_equal(z, trial.z), f"{'forward' if call is codec else 'encode'} changed them")


def _in_inference_mode(codec: Codec, trial: Trial) -> None:
    with torch.inference_mode():
        _round_trip(codec, Trial(trial.z, codec.payload(trial.tensors())))


def _not_contiguous(codec: Codec, trial: Trial) -> None:
    strided = tuple(t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t for t in trial.tensors())
    payload = codec.payload(strided)
    _round_trip(codec, Trial(trial.z, payload))
    if not codec.is_learned:  # a network's last bit may depend on how its input lies in memory
        expect(payload == trial.payload, "got other bytes than for the same values in a row")


def _forward_kind(codec: Codec, trial: Trial) -> None:
    z_hat = codec(trial.tensors())
    expect(isinstance(z_hat, tuple), f"got {type(z_hat).__name__}, not a tuple")
    expect(in_words(z_hat) == in_words(trial.z), f"got {in_words(z_hat)}")


def _forward_equals(codec: Codec, trial: Trial) -> None:
    for z, in_memory, from_bytes in zip(trial.z, codec(trial.tensors()), codec.read(trial.payload), strict=True):
        if not z.is_floating_point():
            expect(torch.equal(in_memory, from_bytes), "integers differ")
            continue
        range_ = float(z.float().max() - z.float().min()) or float(z.float().abs().max())
        worst = float((in_memory.float() - from_bytes.float()).abs().max())
        slack = range_ * max(_SLACK, torch.finfo(z.dtype).eps)
        expect(worst <= slack, f"they differ by up to {worst:.3g}, allowed is {slack:.3g}")


def _is_samplewise(codec: Codec, trial: Trial) -> None:
    if any(z.dim() < 2 for z in trial.z):
        return
    together = codec(trial.tensors())
    alone = [codec(z) for z in zip(*(z.split(1) for z in trial.tensors()), strict=True)]
    joined = tuple(torch.cat(tensors) for tensors in zip(*alone, strict=True))
    expect(_are_equal(together, joined), "they differ")


def _gradients(codec: Codec, trial: Trial) -> None:
    z = tuple(t.clone().requires_grad_() if t.is_floating_point() else t for t in trial.z)
    z_hat = codec(z)
    given, made = [t for t in z if t.requires_grad], [t for t in z_hat if t.is_floating_point()]
    expect(all(t.requires_grad for t in made), "forward's result has no gradient")
    gradients = torch.autograd.grad(
        sum(t.float().square().sum() + t.float().sum() for t in made), given, allow_unused=True
    )
    for gradient in gradients:
        expect(gradient is not None, "none reaches the input")
        expect(gradient.isfinite().all(), "it is not finite")
        expect(gradient.any(), "it is zero everywhere; pass it straight through where you round")


def _protected(codec: Codec, trial: Trial) -> None:
    size = codec.protected_bytes(trial.payload)
    expect(isinstance(size, int) and 0 <= size <= len(trial.payload), f"got {size!r} for {len(trial.payload)} bytes")


def _combines(codec: Codec, trial: Trial) -> None:
    local = codec.local_output(trial.tensors())
    if local is None:
        return
    for output in (None, torch.zeros_like(local)):
        combined = codec.combine(local, output)
        expect(isinstance(combined, Tensor), f"got {type(combined).__name__}")
        expect(
            combined.shape == local.shape and combined.isfinite().all(), f"got {in_words((combined,))}, or not finite"
        )
