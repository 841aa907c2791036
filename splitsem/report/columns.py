"""What each column of results.csv means: title, unit, meaning and format, once for every table and glossary."""

from collections.abc import Callable
from typing import NamedTuple

from splitsem.report.units import format_delta, format_number, format_ratio, format_score, worded


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
        "score", "", "The task's own quality measure on the test split, 0 to 1, higher is better.", 1, format_score
    ),
    "score_ci95": Column("±", "", "Half the 95 % interval of the score.", 1, format_score),
    "score_unsplit": Column(
        "unsplit", "", "Score of the whole network on one machine: no cut, no codec, no link.", 1, format_score
    ),
    "score_delta": Column("Δ", "", "Score minus the unsplit network's on the same samples.", 1, format_delta),
    "score_delta_ci95": Column("± of Δ", "", "Half the paired 95 % interval of that difference.", 1, format_score),
    "score_val": Column(
        "score val", "", "Score on the validation split, by which stars and best ones are chosen.", 1, format_score
    ),
    "score_val_ci95": Column("± val", "", "Half the 95 % interval of that score.", 1, format_score),
    "score_val_unsplit": Column("unsplit val", "", "Score of the whole network on it.", 1, format_score),
    "score_val_delta": Column("Δ val", "", "Their difference.", 1, format_delta),
    "score_val_delta_ci95": Column("± of Δ val", "", "Half its paired 95 % interval.", 1, format_score),
    "num_samples": Column("samples", "", "How many samples of the test split were scored.", 1, "{:.0f}".format),
    "num_val_samples": Column("samples val", "", "How many of the validation split.", 1, "{:.0f}".format),
    "channel_seeds": Column("channel seeds", "", "Runs over a lossy link that scores average.", 1, "{:.0f}".format),
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
    "exit_share": Column(
        "exit",
        "%",
        "Share of the test samples that exit on the edge, whose features are not sent (exit=confidence).",
        100,
    ),
    "exit_threshold": Column("above", "", "Confidence above which a sample exits on the edge."),
    "answer_bytes": Column(
        "answer", "kB", "Bytes of the answer that the task needs, mean over all samples, where it travels.", 1e-3
    ),
    "edge_s": Column("edge", "ms", "Work of the edge for one sample: head + encode + reading the answer.", 1e3),
    "head_s": Column("head", "ms", "Time of the head on the edge machine.", 1e3),
    "encode_s": Column("encode", "ms", "Making the payload on the edge: measured here, scaled to the machine.", 1e3),
    "link_s": Column("link", "ms", "busy + delay: from the first byte offered to the last byte received.", 1e3),
    "link_busy_s": Column("busy", "ms", "How long a payload keeps the link from the next one.", 1e3),
    "link_delay_s": Column("delay", "ms", "How long a payload is on its way beyond that.", 1e3),
    "server_s": Column("server", "ms", "Work of the server: decode + tail + coding the answer.", 1e3),
    "decode_s": Column("decode", "ms", "Reading the payload on the server: measured here, scaled.", 1e3),
    "encode_s_ci95": Column("± encode", "ms", "Half the 95 % interval of encode over the timed samples.", 1e3),
    "decode_s_ci95": Column("± decode", "ms", "The same of decode.", 1e3),
    "coding_drift": Column(
        "drift", "%", "How far a quarter's median of coding was off the other quarters' while the job ran.", 100
    ),
    "tail_s": Column("tail", "ms", "Time of the tail on the server.", 1e3),
    "answer_encode_s": Column("answer encode", "ms", "Coding the answer on the server.", 1e3),
    "answer_s": Column("way back", "ms", "The answer's way back to the edge, where it is needed.", 1e3),
    "answer_busy_s": Column("busy back", "ms", "How long an answer keeps the way back from the next one.", 1e3),
    "answer_decode_s": Column("answer decode", "ms", "Reading the answer on the edge.", 1e3),
    "edge_transport_s": Column("edge transport", "ms", "The transport's software on the edge's processor.", 1e3),
    "server_transport_s": Column("server transport", "ms", "The transport's software on the server's processor.", 1e3),
    "latency_s": Column("latency", "ms", "edge + link + server + way back: one sample from end to end.", 1e3),
    "cycle_s": Column(
        "cycle", "ms", "The slowest of edge, busy link, server, busy way back, with transport: the pace.", 1e3
    ),
    "throughput_hz": Column("throughput", "Hz", "Samples a second: 1 / cycle if the stages overlap, else 1 / latency."),
    "measured_latency_s": Column("measured latency", "ms", "Median latency of frames over the real link.", 1e3),
    "prediction_error": Column("latency off by", "%", "How far the predicted latency is off the measured one.", 100),
    "measured_throughput_hz": Column("measured throughput", "Hz", "Frames a second over the real link."),
    "throughput_prediction_error": Column(
        "throughput off by", "%", "How far the predicted throughput is off the measured one.", 100
    ),
    "latency_s_ci95": Column(
        "± ms", "ms", "Half the 95 % interval of the latency: spread of coding, and the machine's drift.", 1e3
    ),
    "throughput_hz_ci95": Column("± Hz", "Hz", "The same of the throughput."),
    "energy_j_ci95": Column("± mJ", "mJ", "The same of the energy.", 1e3),
    "energy_j": Column(
        "energy", "mJ", "Estimated energy of the edge for one sample: computing, sending, waiting.", 1e3
    ),
    "edge_j": Column("computing", "mJ", "Of it, for computing.", 1e3),
    "link_j": Column("radio", "mJ", "Of it, for sending the payload and receiving the answer.", 1e3),
    "idle_j": Column("waiting", "mJ", "Of it, for waiting.", 1e3),
    "link_bandwidth_bps": Column("bandwidth", "Mbit/s", "Of a simulated link.", 1e-6),
    "link_rtt_s": Column("round trip", "ms", "Of a simulated link.", 1e3),
    "distortion_mse": Column(
        "distortion", "", "Mean squared error between feature sent and received; none beyond 3e38.", 1, "{:.3g}".format
    ),
    "score_clean": Column("clean", "", "Score with the same codec over the link without its channel.", 1, format_score),
    "score_over_link": Column(
        "over link", "", "Mean score over the swept range of the link: area under the curve / range.", 1, format_score
    ),
    "snr_db": Column("Eb/N0", "dB", "Signal to noise of a bit on the air, as the receiver saw it."),
    "ber": Column("BER", "", "Share of the bits on the air that arrived wrong, before correction.", 1, "{:.2g}".format),
    "bit_errors": Column("wrong bits", "", "Bits of a payload that arrived wrong, after correction, mean per sample."),
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
    "★ best": "Chosen on the validation split: a score that is better, beyond the paired 95 % interval, than that of "
    "every ★ that is faster. Of equally fast ones, the better one.",
    "= tie": "Neither its speed nor its score is below that of its ★ by more than the interval. "
    "No mark: a ★ is faster and not surely worse, or another one is better.",
    "±": "Half a 95 % interval: over several seeds (Student's t), else over the samples (bootstrap). "
    "0 means that no sample differed; of all that there are, 3 in n may still differ, for n samples (rule of three).",
    "▼ bottleneck": "A point whose raw crossing tensors are smaller than the network's input: a natural place to cut.",
    "reference": "No split at all: everything on the edge, or the picture itself is sent (uint8, PNG, WebP, JPEG) and "
    "the server runs the whole network.",
}


def metrics(score_name: str) -> dict[str, Column]:
    """``METRICS`` in the word for what was scored, see ``units.worded``."""
    return {
        name: one._replace(title=worded(one.title, score_name), meaning=worded(one.meaning, score_name))
        for name, one in METRICS.items()
    }
