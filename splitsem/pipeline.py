"""The path of a sample: head → encode → send → decode → tail → answer → back to the edge. Read this file first."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.errors import ConfigError, PayloadError
from splitsem.links.link import Link, LinkReport
from splitsem.splitting.cut import Cut
from splitsem.tasks.answer import AnswerCoder, raw_coder
from splitsem.trees import call, joined, mapped, num_samples, of_samples, rows

T = TypeVar("T")


class SplitNetwork(nn.Module):
    """Head, codec and tail as one differentiable network, for training with the codec in the loop."""

    def __init__(self, cut: Cut, codec: Codec) -> None:
        super().__init__()
        self.head, self.codec, self.tail, self.postprocess = cut.head, codec, cut.network_tail, cut.postprocess

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """``tail(codec(head(x)))`` in memory, with gradients; a postprocess follows in eval mode, as in the network."""
        output = self.tail(*self.codec(self.head(*inputs, **named)))
        return output if self.training or self.postprocess is None else self.postprocess(output)


class Answering(NamedTuple):
    """What becomes of the network's output.

    Attributes:
        coder: makes the answer of it.
        at: where the answer is needed. It travels back to the edge, unless the whole network ran there; where the
            server needs it, it travels up only if the whole network ran on the edge.
    """

    coder: AnswerCoder
    at: Literal["edge", "server"]


@dataclass
class Frames:
    """What one evaluation counted of its payloads and answers; each list holds one value a sample.

    The seconds of coding are those of this process: of work in memory, not of the machines that are modelled.
    ``wire_bytes`` and ``link_j`` hold both ways; ``link_s`` and its parts are the payload's, ``answer_s`` and
    ``answer_busy_s`` the answer's. The lists of answers stay empty where none travels back.
    """

    payload_bytes: list[int] = field(default_factory=list)
    link_s: list[float] = field(default_factory=list)
    link_busy_s: list[float] = field(default_factory=list)
    link_delay_s: list[float] = field(default_factory=list)
    link_j: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    wire_bytes: list[int] = field(default_factory=list)
    snr_db: list[float] = field(default_factory=list)
    answer_bytes: list[int] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    answer_busy_s: list[float] = field(default_factory=list)
    answer_encode_s: list[float] = field(default_factory=list)
    answer_decode_s: list[float] = field(default_factory=list)
    num_lost: int = 0
    num_resends: int = 0
    bit_errors: int = 0
    air_bits: int = 0
    air_errors: int = 0
    squared_error: float = 0.0
    num_values: int = 0

    def __add__(self, other: "Frames") -> "Frames":
        """The samples of both, one after the other."""
        return Frames(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    @property
    def distortion_mse(self) -> float:
        """Mean squared difference of ``z_hat`` and ``z`` over all floating-point values that crossed."""
        return self.squared_error / self.num_values if self.num_values else 0.0

    @property
    def ber(self) -> float | None:
        """Share of the bits on the air that arrived wrong, before any correction; None without such bits."""
        return self.air_errors / self.air_bits if self.air_bits else None

    def add(self, payload: bytes, report: LinkReport) -> None:
        """Count what became of one payload."""
        self.payload_bytes.append(len(payload))
        self.link_s.append(report.link_s)
        self.link_busy_s.append(report.link_busy_s)
        self.link_delay_s.append(report.link_delay_s)
        self.link_j.append(report.energy_j)
        self.wire_bytes.append(report.wire_bytes)
        self._add_air(report)
        self.bit_errors += report.bit_errors
        if report.snr_db is not None:
            self.snr_db.append(report.snr_db)

    def add_answer(self, sample: int, answer: bytes, report: LinkReport) -> None:
        """Count the way back of one sample's answer."""
        self.answer_bytes.append(len(answer))
        self.answer_s.append(report.link_s)
        self.answer_busy_s.append(report.link_busy_s)
        self.link_j[sample] += report.energy_j
        self.wire_bytes[sample] += report.wire_bytes
        self._add_air(report)

    def _add_air(self, report: LinkReport) -> None:
        self.num_resends += report.num_resends
        self.air_bits += report.air_bits
        self.air_errors += report.air_errors


class Features(NamedTuple):
    """What a head made of some samples.

    Attributes:
        z: the crossing tensors.
        num_samples: how many samples the tensors belong to.
    """

    z: Tensors
    num_samples: int


@torch.inference_mode()
def features(cut: Cut, x: Any) -> list[Features]:
    """Run the head on a batch: a tensor ``(batch, *input_shape)``, or a structure of tensors, see ``trees.call``.

    The head takes the batch at once where every crossing tensor can be taken apart along it, else sample by sample.
    """
    groups = [x] if cut.point.is_batched else rows(x)
    return [Features(call(cut.head, group), num_samples(group)) for group in groups]


@torch.inference_mode()
def in_memory(cut: Cut, codec: Codec, x: Any) -> Any:
    """The outputs that ``Pipeline.run`` gives over a clean link, without making any bytes.

    Each sample goes through ``codec.forward`` by itself (or as if it did, see ``Codec.is_samplewise``), which by the
    contract of a codec is what its bytes give.
    """
    return finish_in_memory(cut, codec, features(cut, x))


@torch.inference_mode()
def finish_in_memory(cut: Cut, codec: Codec, groups: Sequence[Features]) -> Any:
    """Do what ``in_memory`` does after the head, for features that several codecs may share."""
    outputs = []
    tail = cut.with_tail(codec.tail).tail
    takes_batches = codec.is_samplewise and type(codec).local_output is Codec.local_output
    for made in groups:
        if takes_batches and cut.point.is_batched and all(z.dim() > 1 for z in made.z):
            z_hat = [z.contiguous() for z in codec(made.z)]  # as bytes give them
            outputs.append(of_samples(tail(*cut.received(z_hat)), made.num_samples))
            continue
        alone = list(samples(made.z, made.num_samples, cut.point.is_batched))
        z_hats = zip(*(codec(z) for z in alone), strict=True)
        output = of_samples(tail(*cut.received(_together(z_hats))), made.num_samples)
        local = [codec.local_output(z) for z in alone]
        pairs = zip(local, rows(output), strict=True)
        outputs += [row if own is None else codec.combine(own, row) for own, row in pairs]
    return joined(outputs)


class Sent(NamedTuple):
    """What became of one sample's features on their way; ``local`` is what the edge itself makes of them."""

    payload: bytes
    z_hat: Tensors  # zeros where the payload is lost
    is_lost: bool
    local: Tensor | None


class Pipeline:
    """Runs samples through a cut: every payload and every answer is really encoded, carried and decoded.

    Args:
        cut: head and tail.
        codec: encodes on the edge.
        decoder: decodes on the server and knows nothing of ``codec`` but the bytes; where a tail was tuned with this
            codec, the decoder brings that tail.
        link: carries the payloads, and the answers back.
        answering: what becomes of the output; None: it is used where the tail runs, as it is.
    """

    def __init__(self, cut: Cut, codec: Codec, decoder: Codec, link: Link, answering: Answering | None = None) -> None:
        self.cut, self.codec, self.decoder, self.link = cut.with_tail(decoder.tail), codec, decoder, link
        self.answering = answering
        if not _have_equal_weights(codec, decoder):
            raise codec.broken("two codecs of equal settings must have equal weights, or decode cannot undo encode")

    def run(self, x: Any, frames: Frames) -> Any:
        """The network's output for a batch, as it is where it is needed.

        The head and the tail compute a whole batch at once where every crossing tensor can be taken apart along the
        batch; each sample still has a payload of its own.
        """
        return self.finish(features(self.cut, x), frames)

    @torch.inference_mode()
    def finish(self, made: Sequence[Features], frames: Frames) -> Any:
        """Do what ``run`` does after the head, for features that several codecs may share."""
        return joined([self._finish(group, frames) for group in made])

    def in_memory(self, made: Sequence[Features]) -> Any:
        """What ``finish`` gives over a clean link where an answer keeps the score, without making any bytes."""
        if self.answering is not None and self.cut.point.name == "output":  # no codec works there
            return joined([self.cut.tail(*group.z) for group in made])
        return finish_in_memory(self.cut, self.codec, made)

    def _finish(self, made: Features, frames: Frames) -> Any:
        if self.answering is not None and self.cut.point.name == "output":
            return stay(of_samples(self.cut.tail(*made.z), made.num_samples), self.answering, self.link, frames)
        sent = [self.send(z, frames) for z in samples(made.z, made.num_samples, self.cut.point.is_batched)]
        z_hat = _together(zip(*(sample.z_hat for sample in sent), strict=True))
        output = of_samples(self.cut.tail(*self.cut.received(z_hat)), made.num_samples)
        local, is_lost = [sample.local for sample in sent], [sample.is_lost for sample in sent]
        return come_back(self.codec, local, is_lost, output, self.link, frames, self.answering)

    def send(self, z: Tensors, frames: Frames) -> Sent:
        """Encode the crossing tensors of one sample, carry the payload and decode what arrives."""
        first = self.codec.payload(z) if not frames.payload_bytes else None  # also, what is compiled is compiled now
        began = time.perf_counter()
        payload = self.codec.payload(z)
        local = self.codec.local_output(z)
        encoded = time.perf_counter()
        if first is not None and first != payload:
            raise self.codec.broken("encode must give the same bytes for the same tensors")
        report = self.link.send(payload, self.codec.protected_bytes(payload))
        if not isinstance(report, LinkReport):
            raise self.link.broken(f"send must return a LinkReport, got {type(report).__name__}")
        self.decoder.snr_db = report.snr_db
        expected = Expected.like(z)
        if first is not None:
            self._decode(payload, report.payload, expected)
        sent = time.perf_counter()
        z_hat = self._decode(payload, report.payload, expected)
        decoded = time.perf_counter()
        frames.decode_s.append(decoded - sent)
        frames.encode_s.append(encoded - began)
        frames.add(payload, report)
        is_lost = z_hat is None
        if z_hat is None:
            frames.num_lost += 1
            z_hat = tuple(torch.zeros_like(tensor) for tensor in z)
        for clean, received in zip(z, z_hat, strict=True):
            if clean.is_floating_point():
                frames.squared_error += (clean.float() - received.to(clean.device).float()).square().sum().item()
                frames.num_values += clean.numel()
        return Sent(payload, z_hat, is_lost, local)

    def _decode(self, sent: bytes, arrived: bytes | None, expected: Expected) -> Tensors | None:
        """The decoded tensors, or None when the link lost or damaged the payload beyond reading."""
        if arrived is None:
            return None
        try:
            return self.decoder.read(arrived, expected)
        except PayloadError as exc:
            if arrived != sent:
                return None
            if self.decoder.is_framed:
                raise
            raise self.decoder.broken(str(exc)) from exc  # it cannot read its own bytes


def stay(output: Any, answering: Answering, link: Link, frames: Frames) -> Any:
    """The results where the whole network runs on the edge: the output, or what the server reads of the answers.

    Nothing travels where the edge needs the answer. Where the server needs it, each answer travels as a payload.
    """
    if answering.at == "edge":
        for _ in range(num_samples(output)):
            frames.add(b"", LinkReport(b"", 0.0, 0.0, 0.0))
            frames.encode_s.append(0.0)
            frames.decode_s.append(0.0)
        return output
    results: list[Any] = []
    for row in rows(output):
        answer, encode_s = _timed(partial(answering.coder.encode, row), is_first=not results)
        report = link.send(answer)
        frames.add(answer, report)
        read, decode_s = _read(answering.coder, report.payload, is_first=not results)
        frames.encode_s.append(encode_s)
        frames.decode_s.append(decode_s)
        frames.num_lost += read is None
        results.append(mapped(torch.zeros_like, row) if read is None else answering.coder.as_output(read))
    return joined(results)


def come_back(
    codec: Codec,
    local: Sequence[Tensor | None],
    is_lost: Sequence[bool],
    output: Any,
    link: Link,
    frames: Frames,
    answering: Answering | None = None,
) -> Any:
    """The results where they are needed: the tail's output, or what the edge reads of the answers.

    For a codec with local outputs, the edge needs the tail's whole output and combines both. Where the payload or the
    answer was lost, the local output is the result; for any other codec, a lost answer gives zeros.

    Args:
        codec: the edge's codec.
        local: the local output of each sample; all of them are None, or none is.
        is_lost: whether the payload of each sample was lost.
        output: the tail's output, a row a sample.
        link: carries the answers.
        frames: counts the answers; these samples are the last ones in it.
        answering: what becomes of the output; None: the server uses it as it is.
    """
    own = [tensor for tensor in local if tensor is not None]
    if own and answering is not None and answering.at == "server":
        raise ConfigError(
            f"{codec.name} combines two outputs on the edge, so the server has no result: let the answer be at=edge"
        )
    if not own and (answering is None or answering.at == "server"):
        return output
    coder = raw_coder(output) if own or answering is None else answering.coder
    first, results = len(frames.link_s) - num_samples(output), []
    for number, row in enumerate(rows(output)):
        lost = bool(own) and is_lost[number]  # the server has nothing to answer
        answer = None if lost else _answer(row, coder, link, frames, first + number)
        if own:
            results.append(codec.combine(own[number], answer))
        else:
            results.append(mapped(_nothing_like, row) if answer is None else answer)
    return joined(results)


def _nothing_like(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor, device="cpu")


def _answer(output: Any, coder: AnswerCoder, link: Link, frames: Frames, sample: int) -> Any:
    """The output of one sample as the edge reads it from the answer; None when the answer is lost."""
    is_first = not frames.answer_bytes
    answer, encode_s = _timed(partial(coder.encode, output), is_first)
    report = link.send_back(answer)
    frames.add_answer(sample, answer, report)
    read, decode_s = _read(coder, report.payload, is_first)
    frames.answer_encode_s.append(encode_s)
    frames.answer_decode_s.append(decode_s)
    frames.num_lost += read is None
    return None if read is None else coder.as_output(read)


def _read(coder: AnswerCoder, arrived: bytes | None, is_first: bool) -> tuple[Any, float]:
    """The answer and the seconds of reading it; None where it is lost or damaged."""
    if arrived is None:
        return None, 0.0
    try:
        return _timed(partial(coder.decode, arrived), is_first)
    except PayloadError:
        return None, 0.0


def _timed(call: Callable[[], T], is_first: bool) -> tuple[T, float]:
    """What ``call`` returns, and its seconds once it is warm."""
    if is_first:
        call()
    began = time.perf_counter()
    made = call()
    return made, time.perf_counter() - began


def _have_equal_weights(codec: Codec, decoder: Codec) -> bool:
    ours, theirs = codec.state_dict(), decoder.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)


def is_like(z: Tensors, z_hat: Tensors) -> bool:
    """Whether the tensors have the same shapes and dtypes."""
    return [(t.shape, t.dtype) for t in z] == [(t.shape, t.dtype) for t in z_hat]


def _together(z_hat: Iterable[Tensors]) -> list[Tensor]:
    """Each crossing tensor of all samples; as it is where it belongs to one sample, or to all of them."""
    return [torch.cat(tensors) if len(tensors) > 1 else tensors[0] for tensors in z_hat]


def samples(z: Tensors, batch: int, is_batched: bool) -> Iterable[Tensors]:
    """The crossing tensors of each sample by itself."""
    return zip(*(tensor.split(1) for tensor in z), strict=True) if is_batched and batch > 1 else [z]
