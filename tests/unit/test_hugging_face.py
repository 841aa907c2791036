"""transformers_model: networks from configurations and folders fit the task, split exactly, and say what is wrong."""

import json
import logging
import socket

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from splitsem.errors import ConfigError
from splitsem.models.hugging_face import transformers_model
from splitsem.models.image_front import IMAGENET_MEAN, IMAGENET_STD
from splitsem.models.ready_made import torchvision_model
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.texts import VOCABULARY_SIZE
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows import assemble
from tests.conftest import ROOT
from tests.unit.test_task_disaster_rescuenet import write_split

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")

PICTURE, SIZE = (3, 32, 32), 32
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SEGFORMER = {
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "decoder_hidden_size": 16,
}
PICTURES = {
    "vit": TINY | {"patch_size": 8},
    "deit": TINY | {"patch_size": 8},
    "swin": {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "patch_size": 2},
}
TEXTS = {
    "bert": TINY,
    "roberta": TINY,
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
}


def for_pictures(name="vit", classes=5, **options) -> nn.Module:
    torch.manual_seed(0)
    return transformers_model(name, (classes,), PICTURE, **{"config": PICTURES.get(name), **options})


def for_texts(name="bert", length=12, **options) -> nn.Module:
    torch.manual_seed(0)
    facts = {"vocabulary_size": VOCABULARY_SIZE, "sequence_length": length}
    return transformers_model(name, (5,), **facts, **{"config": TEXTS.get(name), **options})


def segmenter() -> nn.Module:
    torch.manual_seed(0)
    return transformers_model("segformer", (12, SIZE, SIZE), PICTURE, config=SEGFORMER)


def of_torchvision(family: str) -> nn.Module:
    torch.manual_seed(0)
    return torchvision_model(f"{family}_mobilenet_v3_large", PICTURE, (12, SIZE, SIZE))


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(lambda name=name: for_pictures(name), id=name) for name in ("vit", "deit")),
        pytest.param(lambda: for_pictures("swin"), id="swin", marks=pytest.mark.slow),
        pytest.param(segmenter, id="segformer", marks=pytest.mark.slow),
        pytest.param(lambda: of_torchvision("lraspp"), id="lraspp", marks=pytest.mark.slow),
        pytest.param(lambda: of_torchvision("deeplabv3"), id="deeplabv3", marks=pytest.mark.slow),
    ],
)
def test_the_halves_compute_what_the_network_does_at_every_offered_cut(make) -> None:
    network = make().eval()
    x = torch.rand(3, *PICTURE)
    inputs = [x[:1], x, x.contiguous(memory_format=torch.channels_last)]
    graph = SplitGraph(network, PICTURE)
    with torch.no_grad():
        whole = [network(each) for each in inputs]
        for point in graph.points:
            cut = graph.cut(point)
            for each, y in zip(inputs, whole, strict=True):
                z = cut.head(each)
                assert torch.equal(cut.tail(*z), y), point.name
                if each.is_contiguous():
                    assert torch.equal(cut.tail(*cut.received([t.contiguous() for t in z])), y), point.name
    assert len(graph.points) > 10
    assert any(point.is_bottleneck for point in graph.points[1:-1])


def test_a_map_made_of_tokens_has_the_memory_order_of_the_network_at_all_batch_sizes() -> None:
    """torch takes it for channels-last at some sizes only, and a tail could differ in the last bit."""
    network = segmenter().eval()
    graph = SplitGraph(network, PICTURE, granularity="op")
    points = [point for point in graph.points if point.name.endswith("dwconv.dwconv")]
    assert len(points) == 4
    with torch.no_grad():
        for batch in (1, 3):
            x = torch.rand(batch, *PICTURE)
            for point in points:
                cut = graph.cut(point)
                received = cut.received([z.contiguous() for z in cut.head(x)])
                assert torch.equal(cut.tail(*received), network(x)), point.name


def test_pictures_are_normalised_inside_and_weights_keep_their_names() -> None:
    network = for_pictures("vit").eval()
    config = transformers.ViTConfig(**PICTURES["vit"], image_size=SIZE, num_labels=5, attn_implementation="eager")
    original = transformers.ViTForImageClassification(config).eval()
    original.load_state_dict(network.state_dict())
    x = torch.rand(2, *PICTURE)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.equal(network(x), original((x - mean) / std).logits)


def test_a_class_map_has_the_pictures_size_at_any_size() -> None:
    network = transformers_model("segformer", (12, 28, 44), (1, 28, 44), config=SEGFORMER, image_size=64)
    x = torch.rand(2, 1, 28, 44)
    assert network.eval()(x).shape == (2, 12, 28, 44)
    assert network.train()(x).shape == (2, 12, 28, 44)


@pytest.mark.parametrize("name", TEXTS)
def test_padding_does_not_count_in_what_a_text_is(name: str) -> None:
    network = for_texts(name).eval()
    ids, longer = torch.zeros(2, 12, dtype=torch.int32)
    ids[:4] = longer[:4] = torch.tensor([1, 70, 71, 72])
    mask = ids.unsqueeze(0) != 0
    longer[4:] = 99
    with torch.no_grad():
        y = network(input_ids=ids.unsqueeze(0), attention_mask=mask)
        other = network(input_ids=longer.unsqueeze(0), attention_mask=mask)
        unmasked = network(input_ids=longer.unsqueeze(0), attention_mask=torch.ones_like(mask))
    assert y.shape == (1, 5)
    if name not in ("roberta", "gpt2"):  # these look for the padding's number, too
        torch.testing.assert_close(y, other)
    assert not torch.allclose(y, unmasked)


def kept(network: nn.Module, folder) -> str:
    network.save_pretrained(folder)
    return str(folder)


def test_a_folders_network_is_what_was_kept_and_nothing_is_fetched(tmp_path, monkeypatch) -> None:
    network = for_pictures("vit").eval()
    folder = kept(network, tmp_path / "net")
    said = {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 32}
    x = torch.rand(2, *PICTURE)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network connection"))
    assert torch.equal(for_pictures(folder).eval()(x), network(x))
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(said))
    network.front.mean.fill_(0.5)
    network.front.std.fill_(0.5)
    assert torch.equal(for_pictures(folder).eval()(x), network(x))


def test_weights_for_other_classes_keep_all_but_the_classifier(tmp_path, caplog) -> None:
    network = for_pictures("vit", classes=5)
    with caplog.at_level(logging.WARNING):
        other = for_pictures(kept(network, tmp_path / "net"), classes=7)
    state = other.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items() if not k.startswith("classifier"))
    assert "classifier.weight (5, 16)≠(7, 16)" in caplog.text


def test_a_folders_weights_count_in_the_name_of_what_is_trained_from_them(tmp_path) -> None:
    network = for_pictures("vit")
    facts = {"model": {"name": kept(network, tmp_path / "net")}}
    before = fingerprint(facts, (network,))
    network.classifier.bias.data.fill_(3.0)
    kept(network, tmp_path / "net")
    assert fingerprint(facts, (network,)) != before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: for_pictures("nvidia/mit-b0"), "hf download nvidia/mit-b0 --local-dir mit-b0"),
        (lambda: for_pictures("segfomer"), "did you mean segformer"),
        (
            lambda: for_pictures("vit", config={"hiden_size": 3}),
            "vit has no setting hiden_size; did you mean hidden_size",
        ),
        (lambda: for_pictures("bert", config=None), "has no head that classifies pictures; those that do: vit, swin"),
        (
            lambda: transformers_model("vit", (12, 32, 32), PICTURE),
            "no head that segments pictures; those that do: segformer",
        ),
        (lambda: for_pictures("vit", config=TINY | {"patch_size": 64}), "cannot"),
        (lambda: for_pictures("segformer", config={"hidden_sizes": [8]}), "transformers cannot build segformer"),
        (lambda: for_pictures("vit", config={"hidden_size": "many"}), "cannot make the configuration of vit"),
        (
            lambda: for_texts("bert", 12, config=TINY | {"max_position_embeddings": 8}),
            "give a smaller task.sequence_length",
        ),
        (
            lambda: for_texts("bert", config=TINY | {"vocab_size": 99}),
            "vocabulary of 99 tokens, but the task's has 258",
        ),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(make, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pytorch_model.bin, which is not read",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"damaged"), "cannot build"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot make the configuration"),
        (
            lambda folder: (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": 32')
            ),
            "do not fit its configuration",
        ),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text('{"image_mean": [1]}'),
            "preprocessor_config.json",
        ),
    ],
)
def test_a_damaged_folder_is_said_in_one_line(tmp_path, change, said: str) -> None:
    kept(for_pictures("vit"), tmp_path / "net")
    change(tmp_path / "net")
    with pytest.raises(ConfigError) as caught:
        for_pictures(str(tmp_path / "net"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_preset_trains_segformer_from_a_folder_of_rescuenets_layout(tmp_path) -> None:
    for split in ("train", "val", "test"):
        write_split(tmp_path / "data", split, split)
    shrunk = [
        "task.size=32",
        "task.image_height=64",
        "trainer.max_epochs=1",
        "trainer.batch_size=4",
        "trainer.num_workers=0",
    ]
    small = "{" + ",".join(f"{key}:{value}" for key, value in SEGFORMER.items()) + "}"
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        full = compose("config", ["experiment=rescuenet_segformer"])
        cfg = compose(
            "config",
            [
                "experiment=rescuenet_segformer",
                *(
                    f"task.root={tmp_path / 'data'}",
                    f"model.config={small}",
                    f"cache_dir={tmp_path / 'cache'}",
                    "device=cpu",
                ),
                *shrunk,
            ],
        )
    assert (full.model.name, full.model.config, full.task.size) == ("segformer", None, 512)  # B0, at full size
    network = assemble.network(cfg)
    assert not network.trained.from_cache
    assert network.model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 12, 32, 32)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_halves_of_a_network_for_texts_compute_what_it_does(name: str) -> None:
    network = for_texts(name).eval()
    ids = torch.randint(2, VOCABULARY_SIZE, (3, 12), dtype=torch.int32)
    ids[0, 7:] = ids[2, 3:] = 0
    batch = {"input_ids": ids, "attention_mask": ids != 0}
    graph = SplitGraph(network, **{key: value[:1] for key, value in batch.items()})
    assert len(graph.points) > 5
    with torch.no_grad():
        for x in ({key: value[:1] for key, value in batch.items()}, batch):
            whole = network(**x)
            for point in graph.points:
                cut = graph.cut(point)
                assert torch.equal(cut.tail(*cut.head(**x)), whole), point.name


def test_a_network_for_texts_trains_and_can_be_cut(tmp_path) -> None:
    rows = [f"{name} says {i},{name}" for i in range(12) for name in ("yes", "no")]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]))
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose(
            "config",
            [
                *("task=texts", f"task.root={tmp_path / 'texts.csv'}", "task.sequence_length=16", "device=cpu"),
                *("model.config.hidden_size=16", "model.config.num_hidden_layers=1", "trainer.max_epochs=1"),
                *("trainer.batch_size=7", f"cache_dir={tmp_path / 'cache'}"),
            ],
        )
    network = assemble.network(cfg)
    assert len(network.graph.points) > 5
    test = network.task.splits().test
    x = {name: torch.stack([sample[0][name] for sample in test]) for name in ("input_ids", "attention_mask")}
    assert not network.trained.from_cache
    assert network.model(**x).shape == (len(test), 2)
