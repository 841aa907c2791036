"""Trained weights: filed by what determines them, whole or refused."""

import multiprocessing

import pytest
import torch
from torch import nn

from splitsem.errors import ConfigError
from splitsem.training import kept_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def test_saved_weights_come_back_bit_for_bit_with_their_history(tmp_path):
    original, other = network(0), network(1)
    kept_weights.save(original, tmp_path / "w.safetensors", [{"val_score": 0.5}], train_s=2.0)
    trained = kept_weights.load(other, tmp_path / "w.safetensors")
    assert trained.history == [{"val_score": 0.5}]
    assert trained.train_s == 2.0
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_every_single_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    kept_weights.save(network(), path, [], 0.0)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ConfigError):
            kept_weights.load(network(), path)


def test_a_damaged_file_is_trained_again_and_mended(tmp_path, caplog):
    calls = []
    kept_weights.fit_or_load(network(), "key", tmp_path, lambda: calls.append(1) or [])
    (tmp_path / "key.safetensors").write_bytes(b"rubbish")
    again = kept_weights.fit_or_load(network(), "key", tmp_path, lambda: calls.append(1) or [])
    third = kept_weights.fit_or_load(network(), "key", tmp_path, lambda: calls.append(1) or [])
    assert (len(calls), again.from_cache, third.from_cache) == (2, False, True)
    assert "Made again" in caplog.text


def test_weights_of_another_network_are_refused_with_the_difference(tmp_path):
    kept_weights.save(nn.Linear(4, 3), tmp_path / "w.safetensors", [], 0.0)
    with pytest.raises(ConfigError, match="another network"):
        kept_weights.load(nn.Linear(4, 2), tmp_path / "w.safetensors")


def _train_slowly(folder, name):
    def fit():
        with open(folder / f"trained-{name}", "x"):
            return []

    kept_weights.fit_or_load(network(), "shared", folder, fit)


def test_processes_that_ask_at_once_train_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_train_slowly, args=(tmp_path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(list(tmp_path.glob("trained-*"))) == 1
