"""A made-up but plausible results.csv: a U-Net cut at many points, several codecs, references and failures.

``sample_results`` has the few columns that results.csv had once, ``complete_results`` all that the reports know.
"""

import numpy as np
import pandas as pd

UNET = (
    *("input", "enc1.conv1", "enc1.conv2", "pool1", "enc2.conv1", "enc2.conv2", "pool2", "enc3.conv1", "enc3.conv2"),
    *("pool3", "bottleneck.conv1", "bottleneck.conv2", "up3", "dec3.conv1", "dec3.conv2", "up2", "dec2.conv1"),
    *("dec2.conv2", "up1", "dec1.conv1", "dec1.conv2", "head.conv", "head.softmax", "output"),
)
NUM_DRAWS = 40
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


def complete_results(points=UNET, codecs=("quant8",), seed=0) -> pd.DataFrame:
    """One row a job with all columns: parts of the times, answers, scores on validation with intervals and draws."""
    frame = sample_results(points, codecs, references=(), seed=seed)
    rng = np.random.default_rng(seed)
    baselines = [
        ("all_on_edge", "output", 0.0, 0.0),
        ("pixels", "input", 12_288.0, 0.0),
        ("png", "input", 9_000.0, 0.0),
    ]
    rows = []
    for name, point, payload, loss in baselines:
        depth = float(point == "output")
        rows.append(_row(0, point, name, 49_152, payload, depth, 0.7421 - loss) | {"reference": name})
    for name, scale in (("jpeg", 1.0), ("webp", 0.8)):
        for quality, share, loss in (
            (10, 0.05, 0.2),
            (30, 0.1, 0.06),
            (50, 0.15, 0.03),
            (70, 0.2, 0.01),
            (90, 0.4, 0.0),
        ):
            row = _row(0, "input", name, 49_152, 12_288 * share * scale, 0.0, 0.7421 - loss)
            rows.append(row | {"reference": name, "codec.quality": quality})
    frame = pd.concat([frame, pd.DataFrame(rows)], ignore_index=True).assign(input_bytes=12_288, score_unsplit=0.7421)
    sends = frame["split_point"].ne("output")
    frame["payload_bytes"] = frame["payload_bytes"].where(sends, 0.0)
    frame["compression_ratio"] = (frame["raw_bytes"] / frame["payload_bytes"]).where(sends)
    frame["head_s"], frame["tail_s"] = frame["edge_s"], frame["server_s"]
    parts = {
        "encode_s": 0.0011,
        "decode_s": 0.0007,
        "answer_encode_s": 2e-4,
        "answer_s": 0.0035,
        "answer_decode_s": 1e-4,
    }
    frame = frame.assign(**{name: value * sends for name, value in parts.items()})
    frame["answer_busy_s"], frame["answer_bytes"] = 0.0005 * sends, 368.0 * sends
    frame["link_busy_s"], frame["link_delay_s"] = frame["payload_bytes"] * 8 / 1.5e6, 0.003 * sends
    frame["link_s"] = frame["link_busy_s"] + frame["link_delay_s"]
    frame["edge_s"] = frame["head_s"] + frame["encode_s"] + frame["answer_decode_s"]
    frame["server_s"] = frame["decode_s"] + frame["tail_s"] + frame["answer_encode_s"]
    frame["latency_s"] = frame[["edge_s", "link_s", "server_s", "answer_s"]].sum(axis=1)
    frame["cycle_s"] = frame[["edge_s", "link_busy_s", "server_s", "answer_busy_s"]].max(axis=1)
    frame["throughput_hz"] = 1 / frame["cycle_s"]
    frame["edge_j"] = frame["edge_s"] * 6.4
    frame["link_j"] = (frame["payload_bytes"] + frame["answer_bytes"]) * 8 * 2e-8
    frame["idle_j"] = (frame["cycle_s"] - frame["edge_s"]) * 2.1
    frame["energy_j"] = frame[["edge_j", "link_j", "idle_j"]].sum(axis=1)
    shared, own = rng.normal(size=NUM_DRAWS), rng.normal(size=(len(frame), NUM_DRAWS))
    noise = 0.01 * shared + 0.002 * own
    frame["score_val"], frame["score_val_unsplit"] = frame["score"] + 0.01, 0.7521
    frame["draws_val"] = pd.Series(list(frame["score_val"].to_numpy()[:, None] + noise), dtype=object)
    for suffix in ("", "_val"):
        frame[f"score{suffix}_delta"] = frame[f"score{suffix}"] - frame[f"score{suffix}_unsplit"]
        frame[f"score{suffix}_ci95"], frame[f"score{suffix}_delta_ci95"] = 0.02, 0.004
    timings = {"edge_timing": "roofline", "link_timing": "simulated", "server_timing": "roofline"}
    known = {"interval_over": "samples", "num_samples": 96, "num_val_samples": 90, "link_bandwidth_bps": 1.5e6}
    return frame.assign(**timings, **known, link_rtt_s=0.006, coding_timing="scaled")


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
        "compression_ratio": raw / payload if payload else np.nan,
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


def with_a_tie(results: pd.DataFrame) -> pd.DataFrame:
    """``complete_results`` whose second cut can be told from its fastest one neither in speed nor in score."""
    own = results.index[results["reference"].isna()]
    fastest = results.loc[own, "throughput_hz"].idxmax()
    other = next(i for i in own if i != fastest)
    like = results.loc[fastest, ["score", "score_val"]].to_dict() | {
        "throughput_hz": 0.995 * results.loc[fastest, "throughput_hz"]
    }
    results.loc[other, list(like)] = list(like.values())
    noise = 0.002 * np.random.default_rng(1).normal(size=NUM_DRAWS)
    results.at[other, "draws_val"] = results.at[fastest, "draws_val"] + noise
    return results
