from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import seedpo.reports
from seedpo.errors import RunFolderError
from seedpo.reports import write_report
from seedpo.reports.contents import read_contents
from seedpo.reports.families import group
from seedpo.reports.page import facts
from tests.reports.synthetic import PROMPTS, Fate, draw_samples, write_run

VOID = {"meta", "input"}
STEPS = (0, 50, 100)


class Page(HTMLParser):
    """Checks that tags are balanced and collects what a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def words(page: str) -> str:
    """The text of a page."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    fates = {
        "base": (250.0, 0.0, Fate()),
        "see": (250.0, 3.0, Fate(hack=0.1)),
        "control": (1000.0, 0.0, Fate(hack=0.3)),
    }
    return [
        write_run(root / name, beta=beta, gamma=gamma, fate=fate, evaluations=STEPS, tile=8)
        for name, (beta, gamma, fate) in fates.items()
    ]


@pytest.fixture(scope="module")
def text(trio: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(trio, tmp_path_factory.mktemp("out") / "page.html", title="A <title> & more").read_text("utf-8")


def check_alone(text: str) -> None:
    """A page is well formed, loads nothing, and its links lead to places on it."""
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}, tag
        assert not {"src", "srcset", "data", "action", "xlink:href"} & attributes.keys(), (tag, attributes)
    targets = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(targets) == len(set(targets))
    links = {str(attributes["href"]) for _, attributes in page.tags if "href" in attributes}
    assert links <= {f"#{target}" for target in targets}
    assert not re.search(r"https?:|//[a-z]|@import|fetch\(|XMLHttpRequest|import\(", re.sub(r"base64,[^)]*", "", text))
    addresses = re.findall(r"url\(([^)]*)\)", text)
    assert addresses
    assert all(address.startswith("data:image/webp;base64,") for address in addresses)


def test_the_page_is_well_formed_and_loads_nothing(text: str) -> None:
    check_alone(text)


def test_each_sheet_is_embedded_once_and_used_in_both_figures(text: str) -> None:
    rules = re.findall(r"\.(s0-\d+-\d+)\{background-image", text)
    assert sorted(rules) == sorted({f"s0-{run}-{step}" for run in range(3) for step in STEPS})
    assert len(rules) == len(re.findall(r"data:image/webp", text))
    layers = [
        str(attributes["class"]).split() for _, attributes in Page(text).tags if "layer" in str(attributes.get("class"))
    ]
    used = [name for classes in layers for name in classes if name.startswith("s0-")]
    assert sorted(set(used)) == sorted(rules)
    assert used.count("s0-1-100") == 3, "first on the page, in the stepper and among the latents at the last step"
    assert used.count("s0-0-0") == 3, "first on the page, in the stepper and as the strip before training"
    assert used.count("s0-0-50") == 2, "the early stop, and in the stepper"


def test_without_scripts_the_first_view_is_the_worst_step_of_the_base(text: str) -> None:
    shown = [attributes for _, attributes in Page(text).tags if str(attributes.get("class")).endswith(" on")]
    assert {attributes["data-at"] for attributes in shown if "data-at" in attributes} == {"100"}
    slider = next(attributes for tag, attributes in Page(text).tags if attributes.get("type") == "range")
    assert (slider["max"], slider["value"]) == ("2", "2")


def test_pictures_say_in_words_what_they_show(text: str) -> None:
    pictures = [attributes for _, attributes in Page(text).tags if attributes.get("role") == "img"]
    assert len(pictures) > 20
    assert all(attributes.get("aria-label") for attributes in pictures)


def test_the_chapters_are_there_and_text_is_escaped(text: str) -> None:
    assert "<h1>A &lt;title&gt; &amp; more</h1>" in text
    ids = {attributes.get("id") for _, attributes in Page(text).tags}
    assert {"seen", "diffusion-dpo", "table", "again"} <= ids
    plain = words(text)
    assert "base β = 250 reward hacking after step 50" in plain
    assert "seedpo train diffusion-dpo.yaml --set gamma=3.0 --out runs/see" in plain


def test_the_facts_of_the_runs(trio: list[Path]) -> None:
    contents = read_contents(trio)
    assert dict(facts(contents, group(contents.runs))) == {
        "Runs": "3",
        "Method": "Diffusion-DPO",
        "Settings": "base, SEE (with the entropy term), temperature control",
        "Model": "scenes",
        "Optimiser steps": "100",
        "Seeds": "0",
        "Evaluation": "6 prompts of 4 images",
        "Wall time": "37 min 43 s",
    }


def test_prompts_and_names_cannot_inject_markup(tmp_path: Path) -> None:
    prompts = ["<script>alert(1)</script>", '"><b x="']
    folder = write_run(tmp_path / "a<b>c", evaluations=(), samples=False)
    (folder / "metrics.jsonl").write_text('{"step": 0, "kind": "evaluation", "reward/x<i>": 1, "truth": 1}')
    samples = folder / "samples"
    draw_samples(samples, Fate(), (0,), PROMPTS[:2], 2, 8)
    (samples / "index.json").write_text(json.dumps({"tile": 8, "columns": 2, "prompts": prompts}))
    page = write_report([folder], tmp_path / "page.html", title="t").read_text("utf-8")
    assert "<script>alert" not in page
    assert "a<b>c" not in page
    Page(page)


def broken(tmp_path: Path) -> list[Path]:
    """Runs that lack one thing each."""
    folders = [
        write_run(tmp_path / "just-begun", method="spo", evaluations=(), samples=False, finished=False),
        write_run(tmp_path / "no-samples", method="spo", gamma=1.0, evaluations=STEPS, samples=False),
        write_run(tmp_path / "no-intervals", evaluations=STEPS, tile=8, half_width=0.0),
        write_run(tmp_path / "other-prompts", gamma=1.0, evaluations=STEPS, tile=8, prompts=PROMPTS[:2]),
        write_run(tmp_path / "unfinished", gamma=2.0, evaluations=(0, 50), tile=8, finished=False),
    ]
    with (folders[2] / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 100, "kind": "evaluation", "truth": NaN, "reward/scenes-scorer": NaN}\n{"step": 10')
    return folders


def test_damaged_and_unfinished_runs_still_make_a_page(tmp_path: Path) -> None:
    page = write_report(broken(tmp_path), tmp_path / "page.html").read_text("utf-8")
    Page(page)
    plain = words(page)
    for part in (
        "5, 3 finished",
        "just-begun: It is not finished",
        "evaluation.num_prompts",
        "no images at step 100",
        "not finite (first: step 100)",
    ):
        assert part in plain, part
    assert "nan" not in re.sub(r"base64,[^)]*", "", page).lower()


def test_groups_that_are_not_compared_are_said_to_be_apart(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", evaluations=(0, 50), samples=False),
        write_run(tmp_path / "b", gamma=1.0, evaluations=(0, 50), samples=False, changes={"learning_rate": 3e-5}),
    ]
    page = write_report(folders, tmp_path / "page.html").read_text("utf-8")
    assert "are not compared across groups" in page
    Page(page)


def test_a_folder_as_target_gets_report_html_and_parents_are_made(trio: list[Path], tmp_path: Path) -> None:
    assert write_report(trio[:1], tmp_path) == tmp_path / "report.html"
    assert write_report(trio[:1], tmp_path / "new" / "page.html").is_file()


def test_a_page_that_cannot_be_written_is_named(trio: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"page\.html"):
        write_report(trio[:1], tmp_path / "file" / "page.html")


def test_the_same_runs_make_the_same_page(trio: list[Path], tmp_path: Path) -> None:
    first, second = (write_report(trio, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_reports_need_no_torch() -> None:
    heavy = "('torch', 'diffusers', 'matplotlib')"
    code = f"import sys, seedpo.reports; print([name for name in {heavy} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(Path(seedpo.reports.__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "[]"
