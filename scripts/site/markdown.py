"""Markdown as the site needs it: links between all pages, layered figures, the index of decisions, listings."""

import html
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

CODE = re.compile(
    r"(^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,}).*?^(?P=indent)(?P=fence)[ \t]*$)", re.MULTILINE | re.DOTALL
)
INLINE = re.compile(r"(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?([^)]*)\)")
REASON = re.compile(r"^<!-- (?:not run here|run by|blocks run by)[^\n]*? -->\n", re.MULTILINE)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".c": "c", ".ipynb": "json", "": "sh"}


def _split(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces: whether a piece is code, and the piece."""
    covered = [match.span() for match in CODE.finditer(text)]
    covered += [m.span() for m in INLINE.finditer(text) if not any(a <= m.start() < b for a, b in covered)]
    at = 0
    for start, end in sorted(covered):
        if start < at:
            continue
        yield False, text[at:start]
        yield True, text[start:end]
        at = end
    yield False, text[at:]


def links(text: str) -> list[str]:
    """The files that a page links to or shows, without anchors and web addresses."""
    found = [link for is_code, piece in _split(text) if not is_code for link, _ in LINK.findall(piece)]
    return [path for link in found if not re.match(r"[a-z][a-z0-9+.-]*:", link) and (path := link.partition("#")[0])]


def relinked(text: str, here: Path, uri: str, site_uri: Callable[[Path], str]) -> str:
    """A page's text whose links go where the site has their files.

    Args:
        text: Markdown.
        here: the page's file in the repository.
        uri: the page's place in the site.
        site_uri: the place of any file of the repository.
    """

    def moved(match: re.Match[str]) -> str:
        path, hash_, anchor = match[1].partition("#")
        if not path or re.match(r"[a-z][a-z0-9+.-]*:", path):
            return match[0]
        target = (here.parent / path).resolve()
        if not target.exists():
            return match[0]
        place = posixpath.relpath(site_uri(target), posixpath.dirname(uri) or ".")
        return f"]({place}{hash_}{anchor}{match[2]})"

    return "".join(piece if is_code else LINK.sub(moved, piece) for is_code, piece in _split(text))


def with_reasons(text: str) -> str:
    """A line for the reader in place of a comment that says why, or how, a block is run."""

    def said(match: re.Match[str]) -> str:
        what = match[0].strip()[5:-4]
        return f'<p class="how-run">{html.escape(what)}</p>\n\n' if "run by" not in what else ""

    return REASON.sub(said, text)


def with_layers(text: str) -> str:
    """Boxes in layers in place of a Mermaid flowchart of subgraphs, which needs a script of the web to be drawn."""

    def drawn(match: re.Match[str]) -> str:
        figure = match[0]
        titles = re.findall(r'subgraph \w+ \["(.+?)"\](.*?)^\s*end', figure, re.MULTILINE | re.DOTALL)
        if not titles:
            return figure
        names = dict(re.findall(r'^\s*(\w+)\["([^<"]+)', figure, re.MULTILINE))
        rows = []
        for title, body in titles:
            boxes = "".join(
                f"<span><b>{html.escape(name)}</b><br>{html.escape(about)}</span>"
                for name, about in re.findall(r'\["([^<"]+)<br>([^"]+)"\]', body)
            )
            rows.append(f'<div class="layer"><p>{html.escape(title)}</p>{boxes}</div>')
        arrows = [
            f"`{names[a]}` → `{names[b]}`" for a, b in re.findall(r"^\s*(\w+) --> (\w+)\s*$", figure, re.MULTILINE)
        ]
        return f'<div class="layers">{"".join(rows)}</div>\n\nArrows: {", ".join(arrows)}.\n'

    return re.sub(r"^```mermaid\n.*?^```$", drawn, text, flags=re.MULTILINE | re.DOTALL)


def answer(page: str) -> tuple[str, str]:
    """A decision's title and its answer in one sentence: the first of its decision, else the first of the page."""
    title = page.partition("\n")[0].lstrip("# ").strip()
    body = page.partition("\n")[2].strip()
    body = body.partition("**Decision.**")[2] or re.sub(r"^(#.*|\|.*|```.*?^```|[*-] .*)$", "", body, flags=re.M | re.S)
    paragraph = " ".join(body.strip().partition("\n\n")[0].replace("**", "").split()).removeprefix("* ")
    sentence = re.split(r"(?<=\.)\s(?=[A-Z*`])", paragraph, maxsplit=1)[0].rstrip(".:;")
    return title, LINK.sub("]", sentence).replace("[", "").replace("]", "") + "."


def decisions(folder: Path) -> str:
    """The index of the decisions: each with its answer."""
    lines = ["# Decisions", "", "A page for each decision that someone may want to undo, and its answer.", ""]
    lines += ["| decision | answer |", "|---|---|"]
    for path in sorted(folder.glob("*.md")):
        title, sentence = answer(path.read_text())
        if path.name != "index.md":
            lines.append(f"| [{title}]({path.name}) | {sentence.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def listing(path: Path, root: Path) -> str:
    """A page that shows a source file."""
    name = path.relative_to(root).as_posix()
    fence = "`" * 4
    return f"# {name}\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}\n{fence}\n"
