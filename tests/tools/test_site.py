"""The site of the documents builds without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.site_hooks import PAGES, site_links

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr  # mkdocs.yml makes warnings errors
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    documents = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    documents |= {Path(page).with_suffix("") for page in PAGES.values()}
    pages = {path.parent.relative_to(site) for path in site.rglob("index.html")}
    expected = {path.parent if path.name == "index" else path for path in documents}
    assert expected <= pages


def test_the_reference_has_the_functions_that_the_readme_shows(site: Path) -> None:
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert all(
        f'id="seedpo.{name}"' in text for name in ("training.configuration.resolve_config", "training.run.train")
    )


def test_links_of_the_readme_lead_to_pages_of_the_site() -> None:
    assert (
        site_links('[data](docs/data.md#x) <img src="docs/images/a.png">')
        == '[data](data.md#x) <img src="images/a.png">'
    )
