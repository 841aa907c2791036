"""What each column of results.csv means: title, unit, meaning and format, once for every table and glossary."""

from collections.abc import Callable
from typing import NamedTuple

from splitsem.report.units import format_number, format_ratio, format_score


class Column(NamedTuple):
    """One numeric column.

    Attributes:
        title: short header.
        unit: unit of the numbers shown in tables; empty for pure numbers.
        meaning: one sentence for the glossary.
        factor: what the SI value is multiplied by, to be shown in ``unit``.
        form: turns the multiplied value into text.
    """

    title: str
    unit: str
    meaning: str
    factor: float = 1.0
    form: Callable[[float], str] = format_number

    def show(self, value: float) -> str:
        """The text of one cell, from the SI value."""
        return self.form(float(value) * self.factor)


METRICS = {
    "split_index": Column("λ", "", "Number of the split point in network order; 0 is the input."),
    "score": Column(
        "score", "", "The task's own quality measure on the test set, 0 to 1, higher is better.", 1, format_score
    ),
    "score_unsplit": Column(
        "unsplit", "", "Score of the whole network on one machine: no cut, no codec, no link.", 1, format_score
    ),
    "payload_bytes": Column(
        "payload", "kB", "Bytes really sent for one sample, header included (mean over the test set).", 1e-3
    ),
    "wire_bytes": Column(
        "on the wire",
        "kB",
        "Bytes that occupied the link for a sample: codes, checksums and resends too.",
        1e-3,
    ),
    "raw_bytes": Column("raw", "kB", "The crossing tensors of one sample as float32, before any coding.", 1e-3),
    "input_bytes": Column("input", "kB", "The sample itself, as uint8 or in its file format.", 1e-3),
    "encoder_bytes": Column("encoder", "kB", "The codec's weights on the device, beyond the head's.", 1e-3),
    "compression_ratio": Column("ratio", "", "Raw bytes divided by payload bytes.", 1, format_ratio),
    "edge_s": Column("edge", "ms", "Time of the head on the edge machine for one sample.", 1e3),
    "link_s": Column("link", "ms", "Time from the first byte offered to the link to the last byte received.", 1e3),
    "server_s": Column("server", "ms", "Time of the tail on the server for one sample.", 1e3),
    "latency_s": Column("latency", "ms", "edge + link + server: how long one sample takes from end to end.", 1e3),
    "cycle_s": Column("cycle", "ms", "The slowest of edge, link and server: the pace when the three overlap.", 1e3),
    "throughput_hz": Column("throughput", "Hz", "Samples a second: 1 / cycle if the stages overlap, else 1 / latency."),
    "energy_j": Column(
        "energy", "mJ", "Estimated energy of the edge for one sample: computing, sending, waiting.", 1e3
    ),
    "distortion_mse": Column(
        "distortion", "", "Mean squared error between the feature sent and the feature received.", 1, "{:.3g}".format
    ),
    "score_clean": Column("clean", "", "Score with the same codec over the link without its channel.", 1, format_score),
    "score_ci95": Column("±", "", "Half the 95 % interval of the score over the channel's seeds.", 1, "{:.2g}".format),
    "score_over_link": Column(
        "over link", "", "Mean score over the swept range of the link: area under the curve / range.", 1, format_score
    ),
    "snr_db": Column("Eb/N0", "dB", "Signal to noise of a bit on the air, as the receiver saw it."),
    "ber": Column("BER", "", "Share of the bits on the air that arrived wrong, before correction.", 1, "{:.2g}".format),
    "bit_errors": Column("wrong bits", "", "Bits of a payload that arrived wrong, after correction, mean per sample."),
    "encode_s": Column("encode", "ms", "Wall time of the codec's encode on this machine, for one sample.", 1e3),
    "decode_s": Column("decode", "ms", "Wall time of the codec's decode on this machine, for one sample.", 1e3),
    "evaluation_s": Column("evaluation", "s", "Wall time of scoring the whole test split on this machine."),
    "device_flops": Column("device", "MFLOP", "Operations of the exported head and encoder for one sample.", 1e-6),
    "peak_activation_bytes": Column(
        "activations", "kB", "Most memory that the exported graph's tensors take at a time; nothing fused.", 1e-3
    ),
    "pt2_bytes": Column("pt2", "kB", "Size of the torch.export file of head and encoder.", 1e-3),
    "onnx_bytes": Column("ONNX", "kB", "Size of the ONNX file of head and encoder, float32.", 1e-3),
    "int8_bytes": Column("int8", "kB", "Size of the ONNX file with int8 convolutions, where it was kept.", 1e-3),
    "score_int8": Column("score int8", "", "Test score of what the int8 file sends.", 1, format_score),
}

WORDS = {
    "split point": "The place of the cut: the last node that the edge runs. "
    "input = everything on the server, output = everything on the edge.",
    "★ Pareto": "No other cut is at least as good in score and throughput and better in one.",
    "▼ bottleneck": "A point whose raw crossing tensors are smaller than the network's input: a natural place to cut.",
    "reference": "No split at all: the picture itself is sent as JPEG or WebP and the server runs the whole network.",
}
