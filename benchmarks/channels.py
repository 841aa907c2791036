"""Channels and codes: time for a payload of 1 MB, and the bit error rate beside its closed form.

    python benchmarks/channels.py

Bodies without a code go through hard decisions; soft decisions feed decoders. Times are the best of five.
"""

import os
import platform
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from splitsem.links.channel import Bsc, Channel, Erasure, GilbertElliott
from splitsem.links.fading import Awgn, Rayleigh
from splitsem.links.fec import Convolutional
from splitsem.links.lossy import LossyLink
from splitsem.links.simulated import SimulatedLink

SIZE = 1_000_000
CHANNELS: dict[str, Channel] = {
    "bsc, ber 0.0001": Bsc(1e-4),
    "bsc, ber 0.01": Bsc(0.01),
    "bsc, ber 0.158": Bsc(0.158),
    "gilbert-elliott": GilbertElliott(1e-4, 0.1, 1e-3, 1e-2),
    "erasure, 10 %": Erasure(0.1),
    "awgn bpsk 3 dB": Awgn(3.0),
    "awgn qpsk 3 dB": Awgn(3.0, modulation="qpsk"),
    "awgn qam16 6 dB": Awgn(6.0, modulation="qam16"),
    "rayleigh bpsk 10 dB": Rayleigh(10.0),
    "rayleigh bpsk 10 dB, each symbol": Rayleigh(10.0, block_symbols=1),
    "rayleigh qam16 10 dB": Rayleigh(10.0, modulation="qam16"),
}


def sent(over: Callable[..., object], data: NDArray[np.uint8], seed: int) -> object:
    """What arrives of ``data`` over a channel, hard or soft."""
    return over(data, np.random.default_rng(seed))


def best_s(call: Callable[[int], object], repeats: int = 5) -> float:
    """The least of some wall times; ``call`` gets the number of the repeat."""
    times = []
    for repeat in range(repeats):
        began = time.perf_counter()
        call(repeat)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Print the table."""
    octets = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    bits = np.unpackbits(octets)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}\n")
    print(f"{'1 MB over':34} {'hard ms':>8} {'soft ms':>8} {'measured BER':>13} {'closed form':>12}")
    for name, channel in CHANNELS.items():
        hard_s = best_s(partial(sent, channel.hard, octets))
        soft_s = best_s(partial(sent, channel.soft, bits), 2)
        arrived = channel.hard(octets, np.random.default_rng(0)).octets
        ber = np.bitwise_count(arrived ^ octets).sum() / len(bits)
        theory = "-" if channel.ber_theory is None else f"{channel.ber_theory:.4e}"
        print(f"{name:34} {1e3 * hard_s:8.1f} {1e3 * soft_s:8.0f} {ber:13.4e} {theory:>12}")
    code, rng = Convolutional(), np.random.default_rng(0)
    information = bits[:400_000]
    coded = code.encode(information)
    llrs = Awgn(0.0).soft(coded, rng).llrs
    code.decode(llrs, len(information))  # the first call compiles
    decode_s = best_s(lambda _: code.decode(llrs, len(information)))
    print(f"\nViterbi, soft: {len(information) / decode_s / 1e6:.1f} Mbit/s of information")
    print("Eb/N0 of an information bit, soft decisions, 400,000 bits:")
    for ebn0_db in (2.0, 2.5, 3.0, 3.5):
        received = Awgn(ebn0_db - 10 * np.log10(2)).soft(coded, rng).llrs
        wrong = np.count_nonzero(code.decode(received, len(information)) != information)
        print(f"  {ebn0_db} dB: {wrong / len(information):.2e} (uncoded {Awgn(ebn0_db).ber_theory:.2e})")
    header(16)


def header(size: int, num: int = 2000) -> None:
    """Print the share of payloads whose header of ``size`` bytes never arrives, and the header's cost."""
    print(
        f"\nheader of {size} bytes before 48 bytes, {num} payloads over a BSC: lost, mean bytes on the wire, ms a send"
    )
    payload = bytes(range(size + 48))
    for times in (1, 3, 5):
        for snr_db in (-6.0, -3.0, 0.0):
            link = LossyLink(Bsc(ebn0_db=snr_db), SimulatedLink(1e6, 0.01, 1e-8), header_code=Convolutional(times))
            began = time.perf_counter()
            reports = [link.send(payload, size) for _ in range(num)]
            send_s = (time.perf_counter() - began) / num
            lost = sum(report.payload is None for report in reports) / num
            wire_bytes = sum(report.wire_bytes for report in reports) / num
            print(f"  times={times} at {snr_db:+.0f} dB: {lost:6.2%} {wire_bytes:6.0f} {1e3 * send_s:6.2f}")


if __name__ == "__main__":
    main()
