"""Names of what is kept: they change with all that determines it, and with nothing else."""

import importlib
import importlib.metadata
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import nn

from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError
from splitsem.models.cnn import StagedCnn
from splitsem.models.exit_head import ExitHead
from splitsem.tasks.cifar import Cifar
from splitsem.tasks.digits import Digits
from splitsem.tasks.disaster import Disaster
from splitsem.tasks.domains import Domains
from splitsem.tasks.fashion_mnist import FashionMnist
from splitsem.tasks.imagefolder import ImageFolderTask
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.partitions import Iid
from splitsem.training.fingerprint import fingerprint, modules
from splitsem.training.fit import Fit
from splitsem.workflows import assemble
from tests.conftest import ROOT

fingerprint_module = sys.modules[fingerprint.__module__]

NET = """
from torch import nn

from . import widths


class Net(nn.Module):
    def __init__(self, input_shape, output_shape):
        super().__init__()
        first = nn.Linear(3 * 8 * 8, widths.HIDDEN)
        self.layers = nn.Sequential(nn.Flatten(), first, nn.ReLU(), widths.last(output_shape))

    def forward(self, x):
        return self.layers(x)
"""
WIDTHS = """
from torch import nn

HIDDEN = 4


def last(output_shape):
    from usernet.scaling import scaled

    return scaled(HIDDEN, output_shape[0])
"""
SCALING = """
import importlib
from typing import TYPE_CHECKING

from torch import nn

import usernet.net  # a cycle

if TYPE_CHECKING:
    from usernet import unread


def scaled(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=importlib.import_module("usernet.named").BIAS)
"""


@pytest.fixture
def usernet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's own package with a network, on the path."""
    folder = tmp_path / "code" / "usernet"
    folder.mkdir(parents=True)
    sources = {"__init__": "", "net": NET, "widths": WIDTHS, "scaling": SCALING, "named": "BIAS = True\n"}
    for name, text in (sources | {"unread": "", "apart": ""}).items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "usernet"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of twelve 8×8 pictures, all files of one size and time."""
    root = tmp_path / "pictures"
    for split, (shade, name) in ((s, c) for s in ("train", "val") for c in enumerate(("bird", "cat"))):
        (root / split / name).mkdir(parents=True)
        for number in range(12):
            path = root / split / name / f"{number}.bmp"
            Image.new("RGB", (8, 8), (255 * shade, 20 * number, 0)).save(path)
            _make_old(path)
    return root


def _make_old(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def train(
    tmp_path: Path, pictures: Path, usernet: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., assemble.Network]:
    """The user's network trained on the pictures, by the workflows' own path, as a new process would find it."""
    monkeypatch.setattr("splitsem.training.data_index._RACY_S", -60.0)  # the index trusts the files at once

    def call(*overrides: str) -> assemble.Network:
        _forget()
        given = ["task=imagefolder", f"task.root={pictures}", "task.image_size=8", "device=cpu"]
        given += ["model=custom", "model._target_=usernet.net.Net"]
        given += ["trainer.max_epochs=1", "trainer.batch_size=4", f"cache_dir={tmp_path / 'cache'}"]
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            return assemble.fresh_network(compose("config", [*given, *overrides]))

    return call


def test_a_network_is_trained_again_when_a_module_that_its_own_imports_changes(train, usernet):
    assert [train().trained.from_cache, train().trained.from_cache] == [False, True]
    _edit(usernet / "named.py", "True", "False")
    assert not train().trained.from_cache
    for name in ("scaling", "widths", "net"):
        _edit(usernet / f"{name}.py", "return ", "return 1.0 * " if name == "net" else "return nn.Identity() and ")
        assert not train().trained.from_cache, name


def test_comments_docstrings_and_formatting_train_nothing_again(train, usernet):
    train()
    _edit(usernet / "net.py", "class Net(nn.Module):", '"""Nets."""\n\n\nclass Net( nn.Module ):\n    """A net."""\n')
    _edit(usernet / "widths.py", "HIDDEN = 4\n", "HIDDEN = (\n    4  # as many as there are seasons\n)\n")
    (usernet / "scaling.py").write_text('"""Scaling."""\n' + (usernet / "scaling.py").read_text())
    assert train().trained.from_cache


def test_a_module_that_takes_no_part_trains_nothing_again(train, usernet):
    train()
    for name in ("apart", "unread"):
        (usernet / f"{name}.py").write_text("X = 1\n")
    assert train().trained.from_cache


def test_a_network_is_trained_again_when_two_class_folders_swap_their_names(train, pictures):
    train()
    for old, new in (("bird", "swap"), ("cat", "bird"), ("swap", "cat")):
        (pictures / "train" / old).rename(pictures / "train" / new)
    assert not train().trained.from_cache


def test_a_network_is_trained_again_when_pictures_are_deleted_added_or_changed(train, pictures):
    train()
    for number in range(10):
        (pictures / "train" / "cat" / f"{number}.bmp").unlink()
    assert not train().trained.from_cache
    shutil.copy(pictures / "val" / "cat" / "3.bmp", pictures / "train" / "cat" / "3.bmp")
    assert not train().trained.from_cache
    Image.new("RGB", (8, 8), (0, 0, 255)).save(pictures / "val" / "bird" / "5.bmp")
    _make_old(pictures / "val" / "bird" / "5.bmp")
    assert not train().trained.from_cache
    (pictures / "train" / ".DS_Store").write_text("hidden")
    assert train().trained.from_cache


def test_given_weights_need_no_data(train, pictures, tmp_path):
    path = tmp_path / "given.safetensors"
    shutil.copy(train().trained.path, path)
    with_data = train(f"trainer.weights={path}").key
    for folder in (pictures / "val", *(pictures / "train").glob("*/*.bmp")):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    assert train(f"trainer.weights={path}").key != with_data


def test_unchanged_files_are_not_read_again(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("splitsem.training.data_index._RACY_S", -60.0)
    task, cache = ImageFolderTask(str(pictures), image_size=8), tmp_path / "cache"
    first = fingerprint({}, [task], cache_dir=cache)
    read: list[bytes] = []
    monkeypatch.setattr("splitsem.training.data_index._content", lambda file: read.append(file.name) or b"other")
    assert (fingerprint({}, [task], cache_dir=cache), read) == (first, [])
    os.utime(pictures / "train" / "cat" / "7.bmp")
    assert fingerprint({}, [task], cache_dir=cache) != first
    assert read == [b"cat/7.bmp"]


def test_a_file_that_may_change_within_its_clocks_tick_is_read_again(pictures, tmp_path):
    task, cache, path = ImageFolderTask(str(pictures), image_size=8), tmp_path / "cache", pictures / "val/cat/1.bmp"
    first = fingerprint({}, [task], cache_dir=cache)
    path.write_bytes(bytes(path.stat().st_size))
    _make_old(path)
    assert fingerprint({}, [task], cache_dir=cache) != first


def test_a_damaged_index_is_told_and_made_anew(pictures, tmp_path, caplog):
    (tmp_path / "data_index.sqlite").write_bytes(b"no index" * 200)
    task = ImageFolderTask(str(pictures), image_size=8)
    key = fingerprint({}, [task], cache_dir=tmp_path)
    assert "data_index.sqlite is damaged" in caplog.text
    assert (tmp_path / "data_index.sqlite.damaged").read_bytes() == b"no index" * 200
    assert fingerprint({}, [task], cache_dir=tmp_path) == key == fingerprint({}, [task])


@pytest.mark.parametrize("trouble", ["full", "folder", "unwritable"])
def test_an_index_that_cannot_be_written_costs_time_and_nothing_else(pictures, tmp_path, monkeypatch, trouble):
    task = ImageFolderTask(str(pictures), image_size=8)
    cache = tmp_path / "cache"
    if trouble == "folder":
        (cache / "data_index.sqlite").mkdir(parents=True)
    if trouble == "unwritable":
        cache = Path("/proc/self/nothing")
    if trouble == "full":
        connect = sqlite3.connect

        def read_only(path: str) -> sqlite3.Connection:
            return connect(path if path == ":memory:" else f"file:{path}?mode=ro", uri=True)

        monkeypatch.setattr(sqlite3, "connect", read_only)
    assert fingerprint({}, [task], cache_dir=cache) == fingerprint({}, [task])


def test_the_contents_of_a_file_that_settings_name_count(tmp_path):
    path = tmp_path / "start.pth"
    path.write_bytes(b"1")
    facts = {"model": {"weights": str(path), "options": [1, {"table": str(tmp_path / "none.csv")}]}}
    key = fingerprint(facts)
    path.write_bytes(b"2")
    assert fingerprint(facts) != key


def test_what_a_constructor_took_from_elsewhere_counts_where_a_layer_shows_it():
    assert fingerprint({}, [nn.Sequential(nn.Dropout(0.1))]) != fingerprint({}, [nn.Sequential(nn.Dropout(0.2))])
    assert fingerprint({}, [nn.Linear(2, 2)]) == fingerprint({}, [nn.Linear(2, 2)])


def test_a_module_imported_by_a_name_that_only_running_it_tells_counts(usernet):
    (usernet / "named.py").write_text(
        "import importlib\n\n_apart = importlib.import_module('usernet.' + 'trapa'[::-1])\nBIAS = True\n"
    )
    assert "usernet.apart" in modules([importlib.import_module("usernet.named").__name__])


def test_the_version_of_a_package_that_a_module_imports_counts(usernet, monkeypatch):
    (usernet / "named.py").write_text("def late():\n    import PIL\n    return PIL\n")
    key = fingerprint({}, ["usernet.named"])
    monkeypatch.setattr("splitsem.training.fingerprint._version", lambda top: "0.0" if top == "PIL" else "1")
    other = fingerprint({}, ["usernet.named"])
    monkeypatch.setattr("splitsem.training.fingerprint._version", lambda top: "1")
    assert len({key, other, fingerprint({}, ["usernet.named"])}) == 3


def test_every_task_says_which_files_it_reads(tmp_path, pictures):
    digits, root = Digits(), str(tmp_path)
    (tmp_path / "link.csv").write_text("throughput_bps\n1\n")
    rescuenet = [
        tmp_path / split / f"{split}-{kind}-img" for split in ("train", "val", "test") for kind in ("org", "label")
    ]
    for folder in rescuenet:
        folder.mkdir(parents=True)
    assert list(ImageFolderTask(str(pictures)).data_paths()) == [pictures / "train", pictures / "val"]
    assert list(Cifar(root, num_classes=100).data_paths()) == [tmp_path / "cifar-100-python"]
    assert list(Disaster(root).data_paths()) == rescuenet
    assert list(NetQos(csv=root).data_paths()) == [tmp_path / "link.csv"]
    assert list(NetQos(mahimahi=f"{root}/none").data_paths()) == [tmp_path / "none"]
    assert len(FashionMnist().data_paths()) == 4
    base = FashionMnist()
    assert Domains(base, [{"corruption": "fog", "severity": 1}], Iid()).data_paths() == base.data_paths()
    assert [list(task.data_paths()) for task in (digits, Disaster(), NetQos())] == [[], [], []]


class Reads(Digits):
    """Says that it reads a file which its splits do not fetch."""

    def data_paths(self) -> list[Path]:
        return [Path("/nowhere/table.csv")]


def test_what_is_not_there_is_told_in_one_line(tmp_path, pictures):
    with pytest.raises(ConfigError, match=r"^Reads reads /nowhere/table\.csv, which does not exist$"):
        fingerprint({}, [Reads()])
    with pytest.raises(ConfigError, match=r"CIFAR-10 .* was not found"):
        fingerprint({}, [Cifar(str(tmp_path))])
    task = ImageFolderTask(str(pictures), image_size=8)
    shutil.rmtree(pictures / "val")
    with pytest.raises(ConfigError, match="val was looked for and is not a folder"):
        fingerprint({}, [task])
    for objects, without in ((["splitsem.training.fitt"], []), (["nowhere"], []), ([], ["splitsem.tasks.digit"])):
        with pytest.raises(ConfigError, match="must be the name of a module"):
            fingerprint({}, objects, without=without)
    (tmp_path / "broken.py").write_text("def f(:")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ConfigError, match="cannot read the code of broken"):
            fingerprint({}, ["broken"])
    finally:
        sys.path.remove(str(tmp_path))


def test_the_training_of_digits_is_determined_by_these_modules_alone():
    fit = Fit(max_epochs=1, batch_size=2, learning_rate=0.1, weight_decay=0.0, gradient_clip_norm=1.0)
    model = StagedCnn((1, 8, 8), (10,))
    names = modules([Digits(), model, fit])
    assert [name.removeprefix("splitsem.") for name in names if "." in name] == [
        *("codecs", "codecs.codec", "codecs.expected", "extras", "models", "models.capabilities"),
        *("models.cnn", "placement", "tasks", "tasks.answer", "tasks.classification", "tasks.digits"),
        *("tasks.metrics", "tasks.task", "training", "training.fit", "training.gradient_codec", "training.loop"),
        *("training.modules", "training.optimiser", "training.time_left", "trees"),
        *(f"splitsem_device.{name}" for name in ("answer_reader", "fields", "picture_input", "this_machine")),
    ]


def test_the_training_of_an_exit_is_determined_by_these_modules_and_its_network():
    names = modules([ExitHead([(1, 8)], num_classes=3), "splitsem.training.exit_fit"])
    assert [name.removeprefix("splitsem.") for name in names] == [
        "models",
        "models.exit_head",
        "training",
        "training.exit_fit",
    ]


@pytest.mark.parametrize(
    "root", ["training.codec_fit", "cost.lut", "search.solution", "pipeline", "remote.training_tail"]
)
def test_no_plot_or_workflow_determines_what_is_kept(root):
    names = modules([f"splitsem.{root}"])
    assert f"splitsem.{root}" in names
    assert not [name for name in names if name.startswith(("splitsem.workflows", "splitsem.report"))]


def test_lazy_imports_and_cycles_are_followed_and_types_are_not(usernet):
    whole = ["usernet", "usernet.named", "usernet.net", "usernet.scaling", "usernet.widths"]
    assert modules(["usernet.net"]) == whole == modules(["usernet.widths"])
    assert "usernet.net" not in sys.modules  # nothing is imported for that
    assert modules(["usernet.net"], without=["usernet.scaling"]) == ["usernet", "usernet.net", "usernet.widths"]
    assert modules(["usernet.scaling"], without=["usernet"]) == ["usernet.scaling"]


def test_c_files_count_with_the_package_they_lie_in(usernet):
    before = fingerprint({}, ["usernet.net"])
    (usernet / "fast.c").write_text("int one(void) { return 1; }\n")
    with_c = fingerprint({}, ["usernet.net"])
    (usernet / "fast.c").write_text("int one(void) { return 2; }\n")
    changed = fingerprint({}, ["usernet.net"])
    (usernet / "fast.h").write_text("#define TWO 2\n")
    assert len({before, with_c, changed, fingerprint({}, ["usernet.net"])}) == 4


def test_a_file_that_a_setting_names_counts_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [fingerprint({"path": "cell"})]
    for content in ("1 2", "1 3"):
        (tmp_path / "cell").write_text(content)
        found.append(fingerprint({"path": "cell"}))
    assert len(set(found)) == 3


def test_what_an_object_holds_counts_and_loaded_data_do_not():
    task = Domains(Digits(), [{"corruption": "fog", "severity": 1}], Iid())
    names = modules([task])
    assert {"splitsem.tasks.digits", "splitsem.tasks.degradations", "splitsem.tasks.partitions"} <= set(names)
    before = fingerprint({}, [task])
    task.splits()
    assert fingerprint({}, [task]) == before
    fit = Fit(1, 2, 0.1, 0.0, 1.0, gradient_codec=TopK(0.1))
    assert "splitsem.codecs.topk" in modules([fit])


def test_the_version_of_a_package_that_defines_a_layer_counts(monkeypatch):
    import timm

    plain, model = nn.Linear(2, 2), nn.Sequential(timm.layers.Mlp(4))
    keys = fingerprint({}, [plain]), fingerprint({}, [model])
    changed = {"timm"}
    version = importlib.metadata.version
    monkeypatch.setattr(fingerprint_module, "_version", lambda top: "0.0" if top in changed else version(top))
    assert fingerprint({}, [plain]) == keys[0]
    assert fingerprint({}, [model]) != keys[1]
    changed.add("torch")
    assert fingerprint({}, [plain]) != keys[0]


def test_a_name_changes_with_a_setting_and_not_with_a_call():
    first = fingerprint({"seed": 0}, [nn.Linear(2, 2)])
    assert first == fingerprint({"seed": 0}, [nn.Linear(2, 2)])
    assert first != fingerprint({"seed": 1}, [nn.Linear(2, 2)])


def test_a_function_that_makes_the_network_counts_though_it_leaves_no_trace_in_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    factory = tmp_path / "net_factory.py"
    facts = {"model": {"_target_": "net_factory.make"}}
    factory.write_text("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.ReLU())\n")
    before = fingerprint(facts, [nn.Sequential(nn.ReLU())])
    factory.write_text("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Identity())\n")
    assert fingerprint(facts, [nn.Sequential(nn.ReLU())]) != before
    with pytest.raises(ConfigError, match=r"_target_ net_factory\.made must be the name of a class or function"):
        fingerprint({"model": {"_target_": "net_factory.made"}})


def test_relative_imports_by_importlib_are_followed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "dynamic").mkdir()
    (tmp_path / "dynamic" / "__init__.py").write_text("")
    (tmp_path / "dynamic" / "scale.py").write_text("SCALE = 1\n")
    text = 'import importlib\n\ndef scale():\n    return importlib.import_module(".scale", __package__).SCALE\n'
    (tmp_path / "dynamic" / "net.py").write_text(text)
    assert "dynamic.scale" in modules(["dynamic.net"])


def test_hidden_pictures_and_folders_are_no_part_of_the_data(pictures):
    folder = pictures / "train"
    (folder / ".ipynb_checkpoints").mkdir()
    name = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))[0]
    picture = next((folder / name).iterdir())
    shutil.copy(picture, folder / ".ipynb_checkpoints" / "copy.png")
    count = len(ImageFolderTask(str(pictures), image_size=8).splits().train)
    shutil.copy(picture, folder / name / ".copy.png")
    task = ImageFolderTask(str(pictures), image_size=8)
    assert not [one for one in task.class_names if one.startswith(".")]
    assert len(task.splits().train) == count
