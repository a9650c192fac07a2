"""A page about a sweep, evaluations and a preference model together, and the same as Markdown."""

from __future__ import annotations

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
from tests.reports.test_page import Page, check_alone, words


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


def test_every_section_is_there(text: str) -> None:
    ids = {attributes.get("id") for _, attributes in Page(text).tags}
    assert {"spo", "evaluation-1", "evaluation-2", "preference", "failed"} <= ids
    plain = words(text)
    for heading in ("γ varied at fixed β", "control β′ = a, β = 10", "Over the training", "Trade-off"):
        assert heading in plain, heading
    assert "gamma=<9>sweepthe loss | is not finite (its log is gamma=9.log)" in plain


def test_it_is_well_formed_and_loads_nothing(text: str) -> None:
    check_alone(text)


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
    assert "| see against base | aesthetic | 100 / 0 / 0 | 100% [61%, 100%] |" in text
    assert "## Preference model scorer" in text
    assert "| gamma=<9> | sweep | the loss \\| is not finite (its log is gamma=9.log) |" in text
    for row in (line for line in text.splitlines() if line.startswith("|")):
        assert row.endswith(" |")


@pytest.mark.parametrize("index", [1, 3], ids=["evaluation", "preference model"])
def test_evaluations_or_preference_models_alone_make_a_page(folders: list[Path], tmp_path: Path, index: int) -> None:
    text = write_report([folders[index]], tmp_path / "page.html").read_text("utf-8")
    ids = {attributes.get("id") for _, attributes in Page(text).tags}
    assert "seen" not in ids
    assert {"evaluation-1", "preference"} & ids


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
