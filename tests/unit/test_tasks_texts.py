"""Texts as bytes: from folders, CSV files and Debian's installation guides."""

import gzip

import pytest
import torch
from torch.utils.data import DataLoader

from splitsem.errors import ConfigError
from splitsem.tasks.languages import Languages
from splitsem.tasks.texts import FIRST_BYTE, PADDING, START, VOCABULARY_SIZE, Texts


def write_folder(root, **classes: int):
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.txt").write_text(f"{name} says {i}\n")
    return root


def write_csv(path, **classes: int):
    lines = [f'"{name} says {i}",{name}' for name, count in classes.items() for i in range(count)]
    path.write_text("\n".join(["text,label", *lines]))
    return path


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_texts_are_read_and_divided_without_one_in_two_splits(tmp_path, kind: str) -> None:
    root = write_folder(tmp_path / "t", a=10, b=20) if kind == "folder" else write_csv(tmp_path / "t.csv", a=10, b=20)
    task = Texts(str(root), sequence_length=16)
    splits = task.splits()
    assert task.class_names == ("a", "b")
    assert [len(each) for each in splits] == [18, 6, 6]
    texts = [text for each in splits for text in each.texts]
    assert len(set(texts)) == 30
    assert all(
        task.class_names[y] == text[0] for each in splits for text, y in zip(each.texts, each.labels, strict=True)
    )


def test_a_sample_is_a_start_the_bytes_and_padding_that_the_mask_leaves_out(tmp_path) -> None:
    task = Texts(str(write_csv(tmp_path / "t.csv", ä=3, b=3)), sequence_length=14)
    x, _ = next(x for x in task.splits().train if task.class_names[x[1]] == "ä")
    says = "ä says ".encode()
    assert x["input_ids"].tolist()[: 1 + len(says)] == [START, *(FIRST_BYTE + byte for byte in says)]
    assert x["input_ids"].tolist()[-4:] == [PADDING] * 4
    assert torch.equal(x["attention_mask"], x["input_ids"] != PADDING)
    assert (x["input_ids"].dtype, x["attention_mask"].dtype) == (torch.int32, torch.bool)
    assert x["input_ids"].max() < VOCABULARY_SIZE


def test_an_example_has_the_structure_of_a_batch(tmp_path) -> None:
    task = Texts(str(write_csv(tmp_path / "t.csv", a=5, b=5)), sequence_length=9)
    x, _ = next(iter(DataLoader(task.splits().train, batch_size=1)))
    example = task.example()
    assert {name: (v.shape, v.dtype) for name, v in x.items()} == {
        name: (v.shape, v.dtype) for name, v in example.items()
    }
    assert (task.model_facts()["sequence_length"], task.model_facts()["num_classes"]) == (9, 2)


def test_long_texts_are_cut_off(tmp_path) -> None:
    (tmp_path / "t.csv").write_text(
        "text,label\n" + "".join(f"{n}-{name} says,{name}\n" for n in "012" for name in "ab")
    )
    task = Texts(str(tmp_path / "t.csv"), sequence_length=4)
    assert all(x["input_ids"].shape == (4,) and x["attention_mask"].all() for x, _ in task.splits().train)
    assert task.input_bytes == 3


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda root: root / "none", "does not exist"),
        (lambda root: write_folder(root / "t", a=5), "two or more classes"),
        (lambda root: write_folder(root / "t", a=5, b=2), "at least 3 different texts of each class, but b has 2"),
        (lambda root: write_folder(root / "t", a=5, b=0), "b has no .txt files"),
    ],
)
def test_a_root_that_cannot_be_used_is_said_in_one_line(tmp_path, write, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Texts(str(write(tmp_path))).splits()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"text,class\na,b\n", "must have the columns text and label, got text, class"),
        (b"text,label\na,\n", "line 2: text and label must be given"),
        ("text,label\nä,b\n".encode("latin-1"), "must be text in UTF-8, got byte 0xe4 at 11"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_said_in_one_line(tmp_path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        Texts(str(tmp_path / "t.csv"))


def test_texts_alike_as_far_as_they_are_cut_or_of_two_classes_are_in_one_split_or_none(tmp_path, caplog) -> None:
    long, both = [f"{'x' * 9}{n}" for n in range(4)], ["both"]
    rows = [(text, name) for name in "ab" for text in [*(f"{name}{n}" for n in range(4)), *both]]
    rows += [(text, "a") for text in long]
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{text},{name}\n" for text, name in rows))
    splits = Texts(str(tmp_path / "t.csv"), sequence_length=8).splits()
    texts = [text for each in splits for text in each.texts]
    assert sorted(texts) == sorted([*(f"{name}{n}" for name in "ab" for n in range(4)), long[0]])
    assert "1 texts stand in two or more classes and are left out" in caplog.text


def test_a_csv_file_may_hold_long_texts_other_line_ends_and_spaces_around_labels(tmp_path) -> None:
    long = "x" * 200_000
    rows = [f"{long},a", "foo\u2028bar,a", "baz\x0cbar, a", *(f"b{n},b" for n in range(3))]
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    task = Texts(str(tmp_path / "t.csv"))
    assert task.class_names == ("a", "b")
    assert {text for each in task.splits() for text in each.texts} >= {long, "foo\u2028bar", "baz\x0cbar"}


def test_sequences_have_room_for_a_byte() -> None:
    with pytest.raises(ValueError, match="sequence_length must be at least 2 tokens, got 1"):
        Texts("anywhere", sequence_length=1)


def write_guide(root, language: str, encoding: str = "utf-8", count: int = 20, word: str | None = None) -> None:
    own = [f"Running text number {'x' * (i + 1)} in the\nlanguage {word or language}, and more." for i in range(count)]
    shared = [
        "A paragraph that nobody has translated yet, in English.",
        "apt-get -y | 1234 > /dev/null 2>&1 # ============",
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / f"install.{language}.txt.gz").write_bytes(gzip.compress("\n\n".join([*own, *shared]).encode(encoding)))


@pytest.mark.parametrize("is_deep", [False, True])
def test_guides_become_passages_of_their_own_language_only(tmp_path, is_deep: bool) -> None:
    write_guide(tmp_path / "da" if is_deep else tmp_path, "da")
    write_guide(tmp_path / "ru" if is_deep else tmp_path, "ru", "koi8_r", word="русский")
    task = Languages(str(tmp_path), sequence_length=96)
    texts = {
        text: task.class_names[y] for each in task.splits() for text, y in zip(each.texts, each.labels, strict=True)
    }
    assert task.class_names == ("da", "ru")
    assert len(texts) == 40
    assert all(("русский" in text) == (name == "ru") and "\n" not in text for text, name in texts.items())
    assert not any("nobody" in text or "apt-get" in text for text in texts)


def test_passages_are_taken_from_all_parts_of_a_guide(tmp_path) -> None:
    for language in ("da", "sv", "nl"):
        write_guide(tmp_path, language)
    task = Languages(str(tmp_path), languages=["sv", "da"], most_passages=5)
    assert task.class_names == ("da", "sv")
    lengths = sorted(len(t) for each in task.splits() for t, y in zip(each.texts, each.labels, strict=True) if y == 0)
    assert [length - lengths[0] for length in lengths] == [0, 4, 8, 12, 16]


def test_what_is_missing_of_the_guides_is_said_with_the_way_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("splitsem.tasks.languages.INSTALLED", tmp_path / "none")
    monkeypatch.setenv("SPLITSEM_DATA", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"run python -m splitsem\.data get languages"):
        Languages()
    write_guide(tmp_path, "da")
    with pytest.raises(ConfigError, match="has no guide in xx; it has da"):
        Languages(str(tmp_path), languages=["da", "xx"])
    write_guide(tmp_path, "sv")
    path = tmp_path / "install.sv.txt.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"install.sv.txt.gz cannot be read: .*fetch it again"):
        Languages(str(tmp_path)).splits()
