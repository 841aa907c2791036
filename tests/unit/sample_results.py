"""A made-up but plausible results.csv: a U-Net cut at many points, several codecs, references and failures."""

import numpy as np
import pandas as pd

UNET = (
    *("input", "enc1.conv1", "enc1.conv2", "pool1", "enc2.conv1", "enc2.conv2", "pool2", "enc3.conv1", "enc3.conv2"),
    *("pool3", "bottleneck.conv1", "bottleneck.conv2", "up3", "dec3.conv1", "dec3.conv2", "up2", "dec2.conv1"),
    *("dec2.conv2", "up1", "dec1.conv1", "dec1.conv2", "head.conv", "head.softmax", "output"),
)
BITS = {"identity": 32.0, "fp16": 16.0, "quant8": 8.0, "quant4": 4.0, "quant2": 2.0}


def sample_results(points=UNET, codecs=("quant8",), references=("jpeg", "webp"), num_failed=0, seed=0) -> pd.DataFrame:
    """One row a job, with the columns that a sweep of the split workflow writes."""
    rng = np.random.default_rng(seed)
    input_bytes, unsplit = 3 * 64 * 64, 0.7421
    rows = []
    for codec in codecs:
        for index, point in enumerate(points):
            depth = index / max(len(points) - 1, 1)
            raw = 4 * 64 * 64 * (3 if index == 0 else 12 if point == "output" else 0.3 + 26 * abs(depth - 0.45) ** 1.3)
            payload = raw * BITS[codec] / 32 * (0.62 if BITS[codec] <= 8 else 1.0) * rng.uniform(0.8, 1.1) + 48
            loss = {"quant8": 0.001, "quant4": 0.009, "quant2": 0.09}.get(codec, 0.0) * (1 - 0.7 * depth)
            rows.append(_row(index, point, codec, raw, payload, depth, unsplit - loss * rng.uniform(0.5, 1.6)))
    for reference, size, score in (("jpeg", 0.18, 0.705), ("webp", 0.12, 0.712)):
        if reference in references:
            row = _row(0, "input", reference, 4 * input_bytes, input_bytes * size, 0.0, score)
            rows.append(row | {"reference": reference})
    frame = pd.DataFrame(rows)
    frame["input_bytes"], frame["score_unsplit"] = input_bytes, unsplit
    for i in range(num_failed):
        frame.loc[i, "status"] = "failed"
        frame.loc[i, "error"] = f"PayloadError: expected <quant8> & got {i} bytes\nof nothing"
        # A job that failed knows its overrides only.
        frame.loc[i, frame.columns.difference(["split.point", "status", "error"])] = np.nan
    return frame


def _row(index, point, codec, raw, payload, depth, score) -> dict:
    edge_s, server_s = 0.055 * depth, 0.004 * (1 - depth)
    link_s = 0.003 + payload * 8 / 1.5e6
    times = {"edge_s": edge_s, "link_s": link_s, "server_s": server_s}
    return {
        "split.point": point,
        "status": "ok",
        "error": None,
        "score": score,
        "split_point": point,
        "split_index": index,
        "raw_bytes": raw,
        "payload_bytes": payload,
        "compression_ratio": raw / payload,
        **times,
        "latency_s": sum(times.values()),
        "cycle_s": max(times.values()),
        "throughput_hz": 1 / max(times.values()),
        "energy_j": edge_s * 6.4 + payload * 8 * 2e-8 + (link_s + server_s) * 2.1,
        "distortion_mse": 0.0 if codec == "identity" else 1e-4,
        "encode_s": 0.0011,
        "decode_s": 0.0007,
        "codec": codec,
        "task": "disaster",
        "model": "unet",
        "transport": "lte",
        "edge": "raspberry_pi_4",
        "server": "desktop_gpu",
        "reference": None,
    }
