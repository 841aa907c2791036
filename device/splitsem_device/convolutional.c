/* Viterbi decoder of the convolutional code of constraint length 7, rate 1/2 (Viterbi 1967, IEEE Trans. Inf. Theory 13(2)).

   The caller (convolutional.py) has checked that each array has the size that num_steps says. */

#include <stdint.h>

enum { NUM_STATES = 64 };

static int parity(int value) {
    int bit = 0;
    for (; value; value >>= 1) bit ^= value & 1;
    return bit;
}

/* The likeliest bits, `bits[num_steps]`, of `llrs[num_steps][2]`: ln P(0)/P(1) of each coded bit. A generator's top bit of
   seven is the tap of the newest bit. `older[num_steps]` is the decoder's memory: for each step a bit of each state, the one
   that the best way into the state has shifted out. */
int64_t decode_convolutional(const float *llrs, int64_t num_steps, int64_t generator_0, int64_t generator_1,
                             uint64_t *older, uint8_t *bits) {
    int output[2 * NUM_STATES]; /* by register: newest bit on top, then the state */
    for (int k = 0; k < 2 * NUM_STATES; k++) output[k] = 2 * parity(k & (int)generator_0) + parity(k & (int)generator_1);
    float metrics[NUM_STATES], after[NUM_STATES];
    for (int state = 0; state < NUM_STATES; state++) metrics[state] = state ? -1e30f : 0;
    for (int64_t step = 0; step < num_steps; step++) {
        float first = llrs[2 * step], second = llrs[2 * step + 1], best = 0;
        const float gain[4] = {first + second, first - second, second - first, -first - second};
        uint64_t shifted_out = 0;
        for (int state = 0; state < NUM_STATES; state++) {
            int older_0 = state << 1, before = older_0 & (NUM_STATES - 1);
            float with_0 = metrics[before] + gain[output[older_0]];
            float with_1 = metrics[before + 1] + gain[output[older_0 + 1]];
            int is_1 = with_1 > with_0;
            after[state] = is_1 ? with_1 : with_0;
            shifted_out |= (uint64_t)is_1 << state;
        }
        older[step] = shifted_out;
        if (step % 16 == 0) { /* small metrics keep their differences in float32 */
            best = after[0];
            for (int state = 1; state < NUM_STATES; state++) best = after[state] > best ? after[state] : best;
        }
        for (int state = 0; state < NUM_STATES; state++) metrics[state] = after[state] - best;
    }
    int state = 0;
    for (int64_t step = num_steps - 1; step >= 0; step--) {
        bits[step] = (uint8_t)(state >> 5);
        state = (state << 1 & (NUM_STATES - 1)) | (int)(older[step] >> state & 1);
    }
    return 0;
}
