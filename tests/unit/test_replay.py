"""Replay: a recording gives what the pipeline gives, for every link and seed, from one encoding."""

import pytest
import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Codec
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.links.channel import Bsc
from splitsem.links.fading import Rayleigh
from splitsem.links.fec import Convolutional
from splitsem.links.link import Link
from splitsem.links.lossy import LossyLink
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.scoring import score
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.digits import Digits
from splitsem.workflows.replay import Recording, play_all

TASK = Digits()


@pytest.fixture(scope="module")
def cut() -> Cut:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)).eval()
    graph = SplitGraph(net, TASK.input_shape)
    return graph.cut(graph.points[2])


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    test = TASK.splits().test
    x, y = zip(*(test[i] for i in range(24)), strict=True)
    labels = torch.as_tensor(y)
    return [(torch.stack(x[:16]), labels[:16]), (torch.stack(x[16:]), labels[16:])]


def lossy(channel, seed: int = 0) -> LossyLink:
    return LossyLink(channel, SimulatedLink(1e6, 0.01, 1e-8), header_code=Convolutional(2), resends=1, seed=seed)


@pytest.mark.parametrize(
    ("codec", "link"),
    [
        (FixedLength(4), lambda: lossy(Bsc(0.1))),
        (FixedLength(4), lambda: lossy(Rayleigh(0.0, block_symbols=None))),  # some headers are lost
        (Quantise(4, entropy="none"), lambda: lossy(Bsc(2e-3))),
        (Identity(), lambda: SimulatedLink(1e6, 0.01, 1e-8)),
    ],
)
def test_a_recording_scores_and_counts_as_the_pipeline_does(cut: Cut, batches, codec: Codec, link) -> None:
    frames = Frames()
    pipeline = Pipeline(cut, codec, codec, link())
    expected = score(lambda x: pipeline.run(x, frames), TASK, batches)
    scores, played = Recording(cut, codec, batches).play(codec, link(), TASK)
    assert scores == expected
    for name in ("payload_bytes", "wire_bytes", "link_s", "snr_db", "num_lost", "bit_errors", "air_bits", "air_errors"):
        assert getattr(played, name) == getattr(frames, name), name


def test_rows_name_link_and_seed_and_more_errors_are_counted_at_lower_snr(cut: Cut, batches) -> None:
    def link_at(snr_db: float):
        return lambda seed: lossy(Bsc(ebn0_db=snr_db), seed)

    links = {snr_db: link_at(snr_db) for snr_db in (-2.0, 6.0)}
    codec = FixedLength(3)
    recording = Recording(cut, codec, batches)
    rows = play_all(recording, codec, TASK, links, seeds=(0, 1))
    assert [(row["link"], row["seed"]) for row in rows] == [(-2.0, 0), (-2.0, 1), (6.0, 0), (6.0, 1)]
    assert [row["snr_db"] for row in rows] == pytest.approx([-2, -2, 6, 6])
    assert min(row["ber"] for row in rows[:2]) > 10 * max(row["ber"] for row in rows[2:])
    assert rows[0]["bit_errors"] != rows[1]["bit_errors"]
    assert play_all(recording, codec, TASK, links, seeds=(0, 1)) == rows


def test_a_codec_that_decodes_many_at_once_is_asked_once_a_batch(cut: Cut, batches) -> None:
    asked = []

    class Counting(FixedLength):
        def decode_all(self, payloads, snr_db):
            asked.append((len(payloads), set(snr_db)))
            return super().decode_all(payloads, snr_db)

    Recording(cut, FixedLength(4), batches).play(Counting(4), lossy(Bsc(0.01)), TASK)
    assert [count for count, _ in asked] == [16, 8]
    assert asked[0][1] == {Bsc(0.01).snr_db}


class Wrong(Link):
    """Delivers a readable payload of another shape."""

    def send(self, payload, protected_bytes=None):
        other = Identity().encode((torch.zeros(1, 2),))
        return SimulatedLink(1e6, 0.01, 1e-8).send(other)


def test_a_payload_of_another_shape_counts_as_lost(cut: Cut, batches) -> None:
    frames = Frames()
    pipeline = Pipeline(cut, Identity(), Identity(), Wrong())
    pipeline.run(batches[0][0], frames)
    assert frames.num_lost == 16
    _, played = Recording(cut, Identity(), batches).play(Identity(), Wrong(), TASK)
    assert played.num_lost == 24
