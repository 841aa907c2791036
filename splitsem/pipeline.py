"""The path of a sample: head → encode → send → decode → tail (→ edge, for a few codecs). Read this file first."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import PayloadError
from splitsem.links.link import Link, LinkReport
from splitsem.split.cut import Cut
from splitsem.tasks.task import Task


class SplitNetwork(nn.Module):
    """Head, codec and tail as one differentiable network, for training with the codec in the loop."""

    def __init__(self, cut: Cut, codec: Codec) -> None:
        super().__init__()
        self.head, self.codec, self.tail = cut.head, codec, cut.tail

    def forward(self, x: Tensor) -> Tensor:
        """``tail(codec(head(x)))`` in memory, with gradients; ``x`` is ``(batch, *input_shape)``."""
        return self.tail(*self.codec(self.head(x)))


@dataclass
class Frames:
    """What one evaluation counted of its payloads; each list holds one value a sample."""

    payload_bytes: list[int] = field(default_factory=list)
    link_s: list[float] = field(default_factory=list)
    link_j: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    wire_bytes: list[int] = field(default_factory=list)
    snr_db: list[float] = field(default_factory=list)
    answer_bytes: list[int] = field(default_factory=list)
    num_lost: int = 0
    num_resends: int = 0
    bit_errors: int = 0
    air_bits: int = 0
    air_errors: int = 0
    squared_error: float = 0.0
    num_values: int = 0

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
        self.link_j.append(report.energy_j)
        self.wire_bytes.append(report.wire_bytes)
        self._add_air(report)
        self.bit_errors += report.bit_errors
        if report.snr_db is not None:
            self.snr_db.append(report.snr_db)

    def add_answer(self, sample: int, answer: bytes, report: LinkReport) -> None:
        """Count the way back of one sample's answer: time and bytes on the wire, but not the server's energy."""
        self.answer_bytes.append(len(answer))
        self.link_s[sample] += report.link_s
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
        device: where the tail runs.
    """

    z: Tensors
    num_samples: int
    device: torch.device


@torch.inference_mode()
def features(cut: Cut, x: Tensor) -> list[Features]:
    """Run the head on a batch ``(batch, *input_shape)``.

    The head takes the batch at once where every crossing tensor can be taken apart along it, else sample by sample.
    """
    groups = [x] if cut.point.is_batched else x.split(1)
    return [Features(cut.head(group), len(group), x.device) for group in groups]


class _Sent(NamedTuple):
    z_hat: Tensors  # zeros where the payload is lost
    is_lost: bool
    local: Tensor | None


class Pipeline:
    """Runs samples through a cut: every payload is really encoded, carried and decoded.

    Args:
        cut: head and tail.
        codec: encodes on the edge.
        decoder: decodes on the server and knows nothing of ``codec`` but the bytes; where a tail was tuned with this
            codec, the decoder brings that tail.
        link: carries the payloads.
    """

    def __init__(self, cut: Cut, codec: Codec, decoder: Codec, link: Link) -> None:
        self.cut, self.codec, self.decoder, self.link = cut.with_tail(decoder.tail), codec, decoder, link
        if not _have_equal_weights(codec, decoder):
            raise codec.broken("two codecs of equal settings must have equal weights, or decode cannot undo encode")

    def run(self, x: Tensor, frames: Frames) -> Tensor:
        """The tail's output for a batch ``(batch, *input_shape)``, sample by sample over the link.

        The head and the tail compute a whole batch at once where every crossing tensor can be taken apart along the
        batch; each sample still has a payload of its own.
        """
        return self.finish(features(self.cut, x), frames)

    @torch.inference_mode()
    def finish(self, made: Sequence[Features], frames: Frames) -> Tensor:
        """Do what ``run`` does after the head, for features that several codecs may share."""
        outputs = [self._finish(group, frames) for group in made]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _finish(self, made: Features, frames: Frames) -> Tensor:
        sent = [self._send(z, frames) for z in samples(made.z, made.num_samples, self.cut.point.is_batched)]
        received = zip(*(sample.z_hat for sample in sent), strict=True)
        z_hat = tuple(torch.cat(tensors) if len(tensors) > 1 else tensors[0] for tensors in received)
        output = self.cut.tail(*(tensor.to(made.device) for tensor in z_hat))
        local, is_lost = [sample.local for sample in sent], [sample.is_lost for sample in sent]
        return come_back(self.codec, local, is_lost, output, self.link, frames)

    def _send(self, z: Tensors, frames: Frames) -> _Sent:
        began = time.perf_counter()
        payload = self.codec.payload(z)
        local = self.codec.local_output(z)
        encoded = time.perf_counter()
        if not frames.payload_bytes and self.codec.payload(z) != payload:
            raise self.codec.broken("encode must give the same bytes for the same tensors")
        report = self.link.send(payload, self.codec.protected_bytes(payload))
        sent = time.perf_counter()
        self.decoder.snr_db = report.snr_db
        z_hat = self._decode(payload, report.payload)
        if z_hat is not None and not is_like(z, z_hat):
            if report.payload == payload:
                raise self.decoder.broken(f"decode must give back {_describe(z)}, got {_describe(z_hat)}")
            z_hat = None  # the header is damaged, but its checksum fits
        frames.decode_s.append(time.perf_counter() - sent)
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
        return _Sent(z_hat, is_lost, local)

    def _decode(self, sent: bytes, arrived: bytes | None) -> Tensors | None:
        """The decoded tensors, or None when the link lost or damaged the payload beyond reading."""
        if arrived is None:
            return None
        try:
            return self.decoder.read(arrived)
        except PayloadError:
            if arrived == sent:  # the link changed nothing: the codec cannot read its own bytes
                raise
            return None


def come_back(
    codec: Codec,
    local: Sequence[Tensor | None],
    is_lost: Sequence[bool],
    output: Tensor,
    link: Link,
    frames: Frames,
) -> Tensor:
    """The results: the tail's output, or, for a codec with local outputs, both outputs combined on the edge.

    For such a codec, each tail output travels back over ``link`` as a payload of its own. Where the payload or the
    answer was lost, the local output is the result.

    Args:
        codec: the edge's codec.
        local: the local output of each sample; all of them are None, or none is.
        is_lost: whether the payload of each sample was lost.
        output: the tail's output, a row a sample.
        link: carries the answers.
        frames: counts the answers; these samples are the last ones in it.
    """
    own = [tensor for tensor in local if tensor is not None]
    if not own:
        return output
    rows, first = output.split(1), len(frames.link_s) - len(own)
    answers = [
        None if lost else _answer(row, link, frames, first + number)
        for number, (row, lost) in enumerate(zip(rows, is_lost, strict=True))
    ]
    return torch.cat([codec.combine(*pair) for pair in zip(own, answers, strict=True)])


def _answer(output: Tensor, link: Link, frames: Frames, sample: int) -> Tensor | None:
    """The output of one sample as it arrives back on the edge; None when it is lost."""
    answer = Identity().encode((output,))
    report = link.send(answer)
    frames.add_answer(sample, answer, report)
    if report.payload is not None:
        try:
            return Identity().decode(report.payload)[0]
        except PayloadError:
            pass
    frames.num_lost += 1
    return None


def _have_equal_weights(codec: Codec, decoder: Codec) -> bool:
    ours, theirs = codec.state_dict(), decoder.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)


def _describe(z: Tensors) -> str:
    return " ".join(f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in z) or "no tensors"


def is_like(z: Tensors, z_hat: Tensors) -> bool:
    """Whether the tensors have the same shapes and dtypes."""
    return [(t.shape, t.dtype) for t in z] == [(t.shape, t.dtype) for t in z_hat]


def samples(z: Tensors, batch: int, is_batched: bool) -> Iterable[Tensors]:
    """The crossing tensors of each sample by itself."""
    return zip(*(tensor.split(1) for tensor in z), strict=True) if is_batched and batch > 1 else [z]


def score(
    network: Callable[[Tensor], Tensor], task: Task, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """The task's metrics of ``network`` over ``batches`` of ``(x, y)``, computed in float32 on the CPU."""
    metrics = task.metrics()
    with torch.inference_mode():
        for x, y in batches:
            metrics.update(network(x).float().cpu(), y)
    return {name: float(value) for name, value in metrics.compute().items()}
