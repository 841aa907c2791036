"""Languages: in which of 19 languages a passage is; of Debian's installation guide, which says the same in each."""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from splitsem.data.shelf import SETTING, home
from splitsem.errors import DataError
from splitsem.tasks.texts import Texts, decoded

INSTALLED = Path("/usr/share/doc/installation-guide-amd64")
PACKAGE = "Debian's installation-guide-amd64"
_NAME = re.compile(r"install\.(\w+)\.txt(\.gz)?")
_ENCODINGS = {"ru": "koi8_r"}  # all others are in UTF-8
_MOST_BYTES = 1 << 24  # of a guide, unpacked; they have half a megabyte
_FEWEST_LETTERS = 0.6  # share of a passage's characters: tables and commands have fewer


class Languages(Texts):
    """Tell a passage's language; see `Texts`.

    Passages are the guide's paragraphs, at most ``most_passages`` of a language, evenly spread over it. Those that
    stand in several languages' guides (commands, names, what nobody has translated) are left out; tables are, too.
    Source: "Debian GNU/Linux Installation Guide", the Debian Installer team, GPL-2.

    Args:
        root: folder with ``install.<language>.txt.gz``, there or one folder deeper; None looks where
            ``python -m splitsem.data get languages`` puts them, then where the Debian package does.
        languages: some of the languages, e.g. ``[de, nl, sv]``; None takes all.
        sequence_length: tokens of a sample; what is longer is cut off.
        most_passages: of a language.
        seed: which passages are held out for val and test.

    Raises:
        DataError: there are no guides, or not in these languages.
        ValueError: ``most_passages`` or ``sequence_length`` is too small.
    """

    def __init__(
        self,
        root: str | None = None,
        languages: Sequence[str] | None = None,
        sequence_length: int = 96,
        most_passages: int = 1000,
        seed: int = 0,
    ) -> None:
        if most_passages < 3:
            raise ValueError(f"most_passages must be at least 3, got {most_passages}")
        self._languages, self._most = languages, most_passages
        super().__init__(str(_found(root)), sequence_length, seed)

    def data_paths(self) -> Sequence[Path]:
        """The guides that are read."""
        return list(self._guides().values())

    def _names(self) -> list[str]:
        return list(self._guides())

    def _read(self, name: str) -> Sequence[str]:
        return self._passages[name]

    @cached_property
    def _passages(self) -> dict[str, list[str]]:
        """The passages of each language that stand in no other one's guide."""
        found = {language: _paragraphs(path) for language, path in self._guides().items()}
        num_languages = Counter(passage for each in found.values() for passage in set(each))
        own = {
            language: [passage for passage in each if num_languages[passage] == 1] for language, each in found.items()
        }
        return {language: _spread(each, self._most) for language, each in own.items()}

    def _guides(self) -> dict[str, Path]:
        """The file of each language, in order of their names."""
        found = _by_language(self.root)
        unknown = [language for language in self._languages or () if language not in found]
        if unknown:
            raise DataError(f"{self.root} has no guide in {', '.join(unknown)}; it has {', '.join(found)}")
        return {language: found[language] for language in sorted(self._languages or found)}


def _by_language(root: Path) -> dict[str, Path]:
    paths = sorted((*root.glob("install.*"), *root.glob("*/install.*")))
    return {match[1]: path for path in paths if (match := _NAME.fullmatch(path.name))}


def _found(root: str | None) -> Path:
    roots = (home() / "languages", INSTALLED) if root is None else (Path(root),)
    found = next((folder for folder in roots if _by_language(folder)), None)
    if found is None:
        raise DataError(
            f"no guides (install.<language>.txt.gz) in {' or '.join(str(folder.absolute()) for folder in roots)}: run "
            f"python -m splitsem.data get languages, which takes them out of {PACKAGE}; or name their folder by "
            f"task.root=, or by {SETTING}= the one that holds the folder languages"
        )
    return found


def _paragraphs(path: Path) -> list[str]:
    """The paragraphs of a guide, each on one line, that are running text of at least 40 bytes."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            content = unpacker.decompress(content, _MOST_BYTES)
            if not unpacker.eof:
                raise gzip.BadGzipFile(f"cut short, or of more than {_MOST_BYTES} bytes")
    except (OSError, zlib.error) as exc:
        raise DataError(f"{path} cannot be read: {exc}; fetch it again") from exc
    language = path.name.split(".")[1]
    text = content.decode(_ENCODINGS[language]) if language in _ENCODINGS else decoded(content, path)
    found = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return [passage for passage in found if len(passage.encode()) >= 40 and _is_running(passage)]


def _is_running(passage: str) -> bool:
    return sum(character.isalpha() for character in passage) >= _FEWEST_LETTERS * len(passage)


def _spread(passages: Sequence[str], most: int) -> list[str]:
    """So many of them, each once, from all parts."""
    different = list(dict.fromkeys(passages))
    num = min(most, len(different))
    return [different[i * len(different) // num] for i in range(num)]
