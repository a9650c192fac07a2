"""A page about a sweep, evaluations and a preference model together, and the same as Markdown."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedpo.cli.main import app
from seedpo.errors import ConfigError, RunFolderError
from seedpo.reports import write_report
from tests.reports.evaluated import write_evaluation
from tests.reports.preference_run import write_preference_run
from tests.reports.synthetic import Fate, write_run
from tests.reports.test_page import Page


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("all")
    for gamma in (0.0, 1.0, 3.0):
        write_run(
            root / "sweep" / f"gamma={gamma}",
            method="spo",
            beta=10.0,
            gamma=gamma,
            fate=Fate(hack=0.9 / (1 + gamma)),
            evaluations=(0, 50, 100),
            tile=8,
            columns=3,
        )
    write_run(root / "sweep" / "beta=40", method="spo", beta=40.0, evaluations=(0, 50, 100), samples=False)
    cell = {"name": "gamma=<9>", "state": "failed", "error": "the loss | is not finite", "log": "gamma=9.log"}
    (root / "sweep" / "sweep.json").write_text(json.dumps({"cells": [cell]}))
    return [
        root / "sweep",
        write_evaluation(root / "final", tile=8),
        write_evaluation(root / "over", labels=("base", "see"), steps=(0, 50), tile=8),
        write_preference_run(root / "scorer"),
    ]


@pytest.fixture(scope="module")
def text(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(folders, tmp_path_factory.mktemp("out") / "page.html").read_text("utf-8")


def words(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_every_section_is_there(text: str) -> None:
    plain = words(text)
    for heading in (
        "γ varied at fixed β",
        "control β′ = a, β = 10",
        "Two settings side by side",
        "Evaluation final",
        "Model against model, on the same prompts and latents",
        "Evaluation over",
        "Over the training",
        "Trade-off",
        "Images side by side",
        "Preference models",
        "Failed cells",
        "gamma=<9>sweepthe loss | is not finite (its log is gamma=9.log)",
    ):
        assert heading in plain, heading


def test_it_is_well_formed_and_loads_nothing(text: str) -> None:
    page = Page(text)
    targets = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(targets) == len(set(targets))
    links = {str(attributes["href"]) for tag, attributes in page.tags if tag == "a"}
    assert {link[1:] for link in links} <= set(targets)
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "srcset", "action"))
    bare = re.sub(r"base64,[^)]*", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|fetch\(|XMLHttpRequest|import\(", bare)
    assert all(address.startswith("data:image/") for address in re.findall(r"url\(([^)]*)\)", text))


def test_everything_that_can_be_pressed_or_seen_has_a_name(text: str) -> None:
    page = Page(text)
    for tag, attributes in page.tags:
        if attributes.get("role") in ("img", "group"):
            assert attributes.get("aria-label"), (tag, attributes)
        if tag == "button" and "data-turn" in attributes:
            assert attributes.get("aria-label"), attributes
    assert not re.search(r"<select(?![^>]*aria-label)(?<!<label>)", re.sub(r"<label>[^<]*<select", "", text))


def test_the_viewers_use_sheets_that_are_on_the_page(text: str) -> None:
    sheets = set(re.findall(r"\.([se]\d+-[\d-]+)\{background-image", text))
    viewers = [attributes for _, attributes in Page(text).tags if "data-viewer" in attributes]
    assert len(viewers) == 3, "one of the runs, two of the evaluations"
    for viewer in viewers:
        assert viewer["tabindex"] == "0"
    options = [attributes for tag, attributes in Page(text).tags if tag == "option" and "data-classes" in attributes]
    used = {name for option in options for name in json.loads(str(option["data-classes"])) if name}
    assert used == sheets, "every sheet can be reached, and no other is asked for"


def test_markdown_tells_findings_tables_and_failures(folders: list[Path], tmp_path: Path) -> None:
    target = write_report(folders, tmp_path, format="markdown")
    assert target.name == "report.md"
    text = target.read_text("utf-8")
    assert "* base β = 10: **reward hacking after step 50**" in text
    assert "## Evaluation final" in text
    assert "| see against base | aesthetic | 100 / 0 / 0 | 100% [100%, 100%] |" in text
    assert "## Preference model scorer" in text
    assert "| gamma=<9> | sweep | the loss \\| is not finite (its log is gamma=9.log) |" in text
    for row in (line for line in text.splitlines() if line.startswith("|")):
        assert row.endswith(" |")


def test_evaluations_alone_make_a_page(folders: list[Path], tmp_path: Path) -> None:
    text = write_report([folders[1]], tmp_path / "page.html").read_text("utf-8")
    Page(text)
    assert "1 evaluation." in words(text)
    assert "What is seen" not in text


def test_a_preference_model_alone_makes_a_page(folders: list[Path], tmp_path: Path) -> None:
    text = write_report([folders[3]], tmp_path / "page.html").read_text("utf-8")
    Page(text)
    assert "Accuracy on held-out pairs" in text


def test_wrong_inputs_are_one_line(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format 'pdf' is unknown; use html or markdown"):
        write_report(folders, tmp_path / "page.pdf", format="pdf")
    empty = tmp_path / "half"
    empty.mkdir()
    (empty / "evaluation.yaml").write_text("format: 1")
    with pytest.raises(RunFolderError, match="the evaluation is not finished") as caught:
        write_report([empty], tmp_path / "page.html")
    assert "\n" not in str(caught.value)


def test_the_command(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "results.txt"
    result = CliRunner().invoke(app, ["report", str(folders[1]), "--out", str(out), "--format", "markdown"])
    assert result.exit_code == 0, result.output
    assert out.read_text("utf-8").startswith("# Preference tuning report")
