"""What the site adds to docs/: the files of the repository's root as pages, with the README as the first one.

MkDocs calls these functions by their names; see `hooks` in mkdocs.yml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Pages of the root, by their names on the site."""

ATTACHMENTS = ("CITATION.cff", "LICENSE")
"""Files of the root that pages link to."""


def site_links(markdown: str) -> str:
    """Links of a page of the root, which begin with ``docs/`` there, as they are on the site."""
    for place in ("](docs/", 'src="docs/', 'href="docs/'):
        markdown = markdown.replace(place, place.removesuffix("docs/"))
    return markdown


def on_files(files: Any, config: Any) -> Any:
    """Adds the files of the root."""
    for name, page in PAGES.items():
        text = site_links((ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for name in ATTACHMENTS:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links of docs/ to the root, as they are on the site."""
    return markdown.replace("](../", "](") if "](../CONTRIBUTING" in markdown else markdown
