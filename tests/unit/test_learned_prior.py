"""The learned prior and its coder: lossless, as short as the tables allow, and estimated rates that come true."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.prior_codec import FactorisedPrior
from splitsem.errors import PayloadError
from splitsem_device.entropy import context


def tables(num_rows: int, num_entries: int, seed: int) -> context.Tables:
    chances = np.random.default_rng(seed).dirichlet(np.full(num_entries, 0.3), num_rows)
    return context.to_frequencies(chances)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_any_integers_come_back_with_any_tables(data):
    table = tables(3, data.draw(st.integers(2, 40)), data.draw(st.integers(0, 99)))
    symbols = data.draw(st.lists(st.one_of(st.integers(0, 50), st.integers(-(1 << 15), (1 << 15) - 1)), max_size=60))
    rows = data.draw(st.lists(st.integers(0, 2), min_size=len(symbols), max_size=len(symbols)))
    assert context.decode(context.encode(symbols, rows, table), rows, table) == symbols


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.binary(max_size=40))
def test_any_bytes_are_symbols_or_a_payload_error(body):
    table, rows = tables(2, 9, 0), [0, 1] * 20
    with contextlib.suppress(PayloadError):
        assert len(context.decode(body, rows, table)) == 40


def test_tables_are_whole_and_leave_nothing_out():
    table = tables(50, 33, 1)
    assert (table >= 1).all()
    assert (table.sum(1) == 1 << context.SCALE_BITS).all()


def test_a_code_is_at_most_three_bytes_longer_than_its_information():
    rng, table = np.random.default_rng(0), tables(4, 12, 0)
    rows = rng.integers(0, 4, 400).tolist()
    symbols = [int(rng.choice(11, p=table[r, :11] / table[r, :11].sum())) for r in rows]
    bits = -sum(np.log2(table[r, s] / (1 << context.SCALE_BITS)) for r, s in zip(rows, symbols, strict=True))
    assert bits / 8 - 1 < len(context.encode(symbols, rows, table)) <= bits / 8 * 1.002 + 3


def test_a_prior_learns_the_distribution_and_its_estimate_comes_true_in_bytes():
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([0.3, 1.0, 4.0])[None, :, None]
    y = (scales * torch.randn(64, 3, 40, generator=generator)).round()
    prior = FactorisedPrior(3)
    before = prior.bits(y).sum((1, 2)).mean().item()
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        prior.bits(y).sum((1, 2)).mean().backward()
        optimizer.step()
    after = prior.bits(y).sum((1, 2)).mean().item()
    stale = sum(len(prior.encode(sample)) for sample in y) / len(y)
    prior.freeze()
    payloads = [prior.encode(sample) for sample in y]
    measured = sum(map(len, payloads)) / len(y)
    assert after < before
    assert measured < stale
    assert measured == pytest.approx(after / 8, abs=3)
    assert all(torch.equal(prior.decode(data, 40), sample) for data, sample in zip(payloads, y, strict=True))


def test_the_rate_term_shortens_real_payloads():
    torch.manual_seed(0)
    codec = EntropicStudent((4, 8, 8), code_channels=4, width=8).train()
    z = torch.randn(16, 4, 8, 8)
    codec.calibrate([z])

    def payload_bytes() -> int:
        codec.finish_training()
        return len(codec.encode((10 * z,)))

    before = payload_bytes()
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        codec.code(10 * z, None).rate_bits.backward()
        optimizer.step()
    assert payload_bytes() < 0.9 * before


def test_a_wrong_bit_of_an_entropy_coded_payload_is_noticed():
    codec = EntropicStudent((4, 8, 8), code_channels=4, width=8).eval()
    payload = codec.encode((torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),))
    assert codec.protected_bytes(payload) == len(payload)
    for position in range(len(payload)):
        with pytest.raises(PayloadError):
            codec.decode(payload[:position] + bytes([payload[position] ^ 4]) + payload[position + 1 :])
