"""The Viterbi decoder of a terminated code of rate 1/2 and 64 states, compiled by numba."""

import numba
import numpy as np

from splitsem.transport.channels.channel import Bits, Llrs


@numba.njit(cache=True)
def decode(llrs: Llrs, generator_0: int, generator_1: int) -> Bits:
    """The likeliest bits, closing zeros included.

    Args:
        llrs: ``(steps, 2)``, ln P(0)/P(1) of each coded bit.
        generator_0: taps of the first coded bit; the top one of 7 bits is the newest.
        generator_1: of the second.
    """
    num_steps = llrs.shape[0]
    output = np.zeros(128, np.uint8)  # of the register: newest bit on top, then the state
    for register in range(128):
        a, b = register & generator_0, register & generator_1
        parity_a = parity_b = 0
        for k in range(7):
            parity_a ^= a >> k & 1
            parity_b ^= b >> k & 1
        output[register] = 2 * parity_a + parity_b
    metrics = np.full(64, np.float32(-1e30), np.float32)
    metrics[0] = 0
    after = np.empty(64, np.float32)
    gain = np.empty(4, np.float32)
    older = np.zeros((num_steps, 64), np.uint8)  # the bit that the best way into a state has shifted out
    for step in range(num_steps):
        first, second = llrs[step, 0], llrs[step, 1]
        gain[0], gain[1], gain[2], gain[3] = first + second, first - second, second - first, -first - second
        for state in range(64):
            register = state << 1
            before = register & 63
            with_0 = metrics[before] + gain[output[register]]
            with_1 = metrics[before + 1] + gain[output[register + 1]]
            if with_1 > with_0:
                after[state] = with_1
                older[step, state] = 1
            else:
                after[state] = with_0
        best = after.max() if step % 16 == 0 else np.float32(0)  # small metrics keep their differences in float32
        for state in range(64):
            metrics[state] = after[state] - best
    bits = np.empty(num_steps, np.uint8)
    state = 0
    for step in range(num_steps - 1, -1, -1):
        bits[step] = state >> 5
        state = (state << 1 & 63) | older[step, state]
    return bits
