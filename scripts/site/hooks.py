"""Hooks of MkDocs: made pages, pages that lie outside ``docs/``, links between all of them, and the navigation.

A page that appears in ``docs/`` needs no edit: one that ``mkdocs.yml`` does not name is added to the section that its
folder belongs to. What a page links to outside ``docs/`` (a study, an example, the changelog) becomes a page, too.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "device")]

from mkdocs.structure.files import File, Files

from scripts.site import api_page, errors_page, markdown, metrics_page, options_page

DOCS = ROOT / "docs"
SECTIONS = {"": "How-to", "how-to": "How-to", "tutorials": "Tutorials", "reference": "Reference"}
SHIM = "https://unpkg.com/iframe-worker/shim"
UNNAMED = {
    '<div class="md-search" data-md-component="search" role="dialog"': "Search",
    'type="checkbox" id="__search"': "Search",
    'type="checkbox" id="__drawer"': "Menu",
}
WIDE = ("measured.md",)
"""Pages whose tables need the whole width; neither column beside them says much."""
BOOSTS = {"reference/errors.md": 2}
"""How many times a page counts in the search: the code of an error is looked for by its words, which all pages have."""
ASSETS = (".png", ".svg", ".csv", ".pdf", ".json", ".html", ".jpg")


def made() -> dict[str, str]:
    """The pages that are made at each build, by their place in ``docs/``."""
    pages = {f"reference/options/{name}": text for name, text in options_page.pages().items()}
    pages["reference/metrics.md"] = metrics_page.metrics_page()
    pages["reference/api.md"] = api_page.api_page()
    pages["reference/errors.md"] = errors_page.errors_page()
    pages["decisions/index.md"] = markdown.decisions(DOCS / "decisions")
    return pages


def site_uri(target: Path) -> str:
    """Where the site has a file of the repository; a folder stands for its page."""
    if target.is_dir():
        inside = DOCS / "decisions" / "index.md" if target == DOCS / "decisions" else target / "README.md"
        target = inside if inside.exists() or target == DOCS / "decisions" else DOCS / f"{target.name}.md"
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if target == ROOT / "README.md":
        return "index.md"
    place = target.relative_to(ROOT).as_posix()
    return place if target.suffix in (".md", *ASSETS) else f"{place}.md"


def outside(start: list[Path]) -> Iterator[Path]:
    """The files outside ``docs/`` that pages link to, and those that these link to, each once."""
    waiting, seen = list(start), set(start)
    while waiting:
        page = waiting.pop()
        for link in markdown.links(page.read_text()):
            target = (page.parent / link).resolve()
            if target.is_dir():
                target = target / "README.md"
            if target in seen or not target.is_file() or not target.is_relative_to(ROOT):
                continue
            seen.add(target)
            if target.is_relative_to(DOCS):
                continue
            yield target
            if target.suffix == ".md":
                waiting.append(target)


def on_config(config: Any) -> Any:
    """Put the pages that the navigation does not name where their folder belongs."""
    config.nav = filled(config.nav, sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")))
    return config


def filled(nav: list[Any], pages: list[str]) -> list[Any]:
    """The navigation with further pages at the end of their sections, and the decisions in their own."""
    sections = {name: entries for section in nav if isinstance(section, dict) for name, entries in section.items()}
    named = set(_named(nav))
    for page in pages:
        folder = page.rpartition("/")[0]
        if page in named or page == "index.md":
            continue
        if folder == "decisions":
            next(entry["Decisions"] for entry in sections["Explanation"] if "Decisions" in entry).append(page)
        else:
            sections[SECTIONS.get(folder, "How-to")].append(page)
    return nav


def _named(entries: Any) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    for entry in entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else ():
        yield from _named(entry)


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages, the README as the start, and what lies outside ``docs/``."""
    for uri, text in made().items():
        files.append(File.generated(config, uri, content=text))
    start = [ROOT / "README.md", *DOCS.rglob("*.md")]
    for path in [ROOT / "README.md", *outside(start)]:
        uri = site_uri(path)
        if uri.removesuffix(".md").endswith(path.name) and path.suffix != ".md" and path.suffix not in ASSETS:
            files.append(File.generated(config, uri, content=markdown.listing(path, ROOT)))
        elif files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Ours in place of the theme's script of the web for pages without a server; names for what has none."""
    return _mended(output, page.file.src_uri.count("/") * "../")


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """The same of the page for addresses that are not there."""
    return _mended(output, "")


def _mended(output: str, up: str) -> str:
    for part, name in UNNAMED.items():
        is_box = "checkbox" in part  # the theme's style hides these boxes, which a page without it would show
        output = output.replace(part, f'{part} aria-label="{name}"{" hidden" * is_box}')
    return output.replace(SHIM, f"{up}assets/frame-worker.js")


def on_page_markdown(text: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them; a layered figure for Mermaid's; the reason beside a block that no test runs."""
    source = page.file.abs_src_path
    here = Path(source) if source else DOCS / page.file.src_uri
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["navigation", "toc"]
    if page.file.src_uri in BOOSTS:
        page.meta["search"] = {"boost": BOOSTS[page.file.src_uri]}
    text = markdown.relinked(text, here, page.file.src_uri, site_uri)
    return markdown.with_reasons(markdown.with_layers(text))
