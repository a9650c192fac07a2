"""The page, the table and the JSON of an analysis, and the command that writes them."""

from __future__ import annotations

import csv
import html
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seedpo.cli import app
from seedpo.core.stats.two_way import LEAST_RATERS
from seedpo.errors import ConfigError, DataError
from seedpo.study.analysis.analyze import Analysis, analyze
from seedpo.study.analysis.page import (
    COMPARISON_COLUMNS,
    MOST_RANKINGS,
    analyze_folder,
    render,
    write_analysis,
)
from seedpo.study.analysis.vote_statistics import Resampling
from seedpo.study.analysis.wording import (
    change_words,
    counts_words,
    findings,
    headline,
    limits_words,
    p_value,
    percent,
    titled,
)
from seedpo.study.folder import open_study
from seedpo.study.records import Candidate, Judgement, Show
from seedpo.study.settings import NAME, Question
from seedpo.study.votes.registration import Aim, Registration
from seedpo.study.votes.store import Store
from tests.study.made_votes import QUESTIONS, check, judgement, made_study, simulated
from tests.study.small_study import pairs_of, small_study

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Tags(html.parser.HTMLParser):
    """Checks that what is opened is closed, and keeps addresses and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]
        self.ids += [values["id"]] if values.get("id") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    given = simulated({"base": 0.0, "see": 1.2, "control": 0.1}, prompts=30)
    given += [check(rater != 4, rater=f"r{rater:02d}", number=900) for rater in range(1, 13)]
    return analyze(made_study(), given, resampling=Resampling(resamples=60), least_checks=0.5)


def test_the_page_is_whole_and_needs_nothing_else(analysis: Analysis) -> None:
    page = render(analysis)
    tags = parsed(page)
    assert all(address.startswith("#") and address[1:] in tags.ids for address in tags.addresses)
    assert len(tags.ids) == len(set(tags.ids))
    assert "<script" not in page
    assert "url(" not in page
    assert page.count('<div class="forest"') == 2 * len(analysis.questions)
    assert not re.search(r"\bnan\b|\binf\b|None", page)


def test_the_page_says_the_numbers(analysis: Analysis) -> None:
    page = render(analysis)
    for result in analysis.questions:
        for row in result.comparisons:
            assert f"<small>{row.wins} / {row.ties} / {row.bad} / {row.losses}</small>" in page
    assert 'id="filter"' in page
    assert "color-scheme: light dark" in page
    assert "width=device-width" in page


def cells(page: str) -> dict[tuple[str, str], list[str]]:
    """The table of findings: by family and models of each row, the texts of its cells."""
    rows, family = {}, ""
    table = page[page.index('<table class="findings">') :]
    for tag, name, row in re.findall(r'<(tbody) class="(\w+)">|<tr>(.*?)</tr>', table[: table.index("</table>")]):
        family = name if tag else family
        if 'scope="row"' in row:
            texts = [
                re.sub(r"<[^>]+>|\s+", " ", cell).split() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
            ]
            rows.setdefault((family, " ".join(texts[0])), []).append([" ".join(text) for text in texts[1:]])
    return rows


def test_the_table_of_findings_has_every_test_in_its_family() -> None:
    settings = {"primary": "alignment", "contrasts": (("base", "see"),)}
    given = simulated({"base": 0.0, "see": 1.2, "control": 0.1}, prompts=30)
    analysis = analyze(made_study(**settings), given, resampling=Resampling(resamples=60))
    rows = cells(render(analysis))
    ((votes, rate, p, verdict),) = rows["primary", "base against see"]
    (row,) = [row for row in analysis.comparisons if row.family == "primary"]
    assert (votes, html.unescape(p), verdict) == (str(row.votes), p_value(row.adjusted), "see preferred")
    assert rate.startswith(percent(row.rate))
    assert sorted(len(found) for (family, _), found in rows.items() if family == "explored") == [1, 2, 2]
    assert "see is preferred to base" in headline(analysis)
    assert "control" not in headline(analysis)


def test_the_first_sentence_counts_where_nothing_was_asked_first(analysis: Analysis) -> None:
    shown = sum(row.verdict != "open" for row in analysis.comparisons)
    assert f"{analysis.tested} comparisons, {shown} " in headline(analysis)
    assert f"{analysis.counts.checks} answers to attention checks" in counts_words(analysis)
    (checks,) = [" ".join(finding.lines) for finding in findings(analysis) if finding.topic == "Attention checks"]
    assert "r04" in checks


def test_a_later_change_of_the_aim_is_on_the_page() -> None:
    registered = Registration(aim=Aim(primary="alignment"), votes=0, at="1")
    given = simulated({"base": 0.0, "see": 0.3}, prompts=10)
    analysis = analyze(made_study(), given, history=[registered], resampling=Resampling(resamples=60))
    line = change_words(analysis.aim, analysis.changes)
    assert f"after {len(given)} answers" in line
    assert html.escape(line) in render(analysis)
    assert "primary question (alignment)" in headline(analysis)


def test_few_and_fast_raters_are_named_beside_what_they_concern() -> None:
    study = made_study(questions=QUESTIONS[:1])
    keen = [judgement("first", rater="keen", prompt=f"p {at}", number=at, seconds=0.5) for at in range(30)]
    alone = analyze(study, keen, resampling=Resampling(resamples=60))
    assert "one rater" in " ".join(limits_words(alone.questions[0]))
    assert "Speed" in [finding.topic for finding in findings(alone)]
    page = render(alone)
    assert page.index('class="warning"') > page.index('id="q-1"')


def test_with_few_raters_nothing_is_said_to_be_shown_or_not_shown() -> None:
    given = simulated({"base": 0.0, "see": 1.0}, prompts=12, raters=LEAST_RATERS - 1, questions=["alignment"])
    more = simulated({"base": 0.0, "see": 2.0}, prompts=20, questions=["preference"])
    analysis = analyze(made_study(primary="alignment"), [*given, *more], resampling=Resampling(resamples=60))
    page, why = render(analysis), f"{LEAST_RATERS - 1} of at least {LEAST_RATERS} raters"
    rows = cells(page)
    ((_, _, p, verdict),) = rows["primary", "base against see"]
    assert (p, verdict) == ("\N{EN DASH}", f"no verdict {why}")
    assert rows["explored", "base against see"][0][-1] == "see leads"
    assert why in headline(analysis)
    assert not re.search("shown|preferred", headline(analysis))
    assert (analysis.tested, analysis.explored) == (0, 1)
    assert page.count('class="warning"') == 1


def liked(share: dict[str, float], *, raters: int = 8, prompts: int = 12) -> list[Judgement]:
    """Likes of one image of each model for each prompt; shares are exact, and which ones is drawn."""
    cells = [(rater, prompt) for rater in range(raters) for prompt in range(prompts)]
    likes = []
    for at, (model, wanted) in enumerate(share.items()):
        order = np.random.default_rng(at).permutation(len(cells))
        likes += [
            single(order[row] < wanted * len(cells), model, rater=f"r{rater}", prompt=f"p{prompt}", at=at, number=row)
            for row, (rater, prompt) in enumerate(cells)
        ]
    return likes


def single(like: bool, model: str, *, rater: str, prompt: str, at: int, number: int) -> Judgement:
    show = Show(token=f"{rater}-{model}-{prompt}", rater=rater, group=prompt, order=(at,), number=number)
    image = Candidate(source=model, images=(f"{model}-{prompt}",))
    answer = "like" if like else "dislike"
    return Judgement(
        show=show, question="liking", prompt=prompt, category="", candidates=(image,), answer=answer, seconds=3.0
    )


def test_likes_are_shares_by_model_and_their_differences() -> None:
    question = Question(key="liking", text="Do you like it?", form="single", choices=("like", "dislike"))
    study = made_study(questions=[question], primary="liking")
    analysis = analyze(study, liked({"base": 0.25, "see": 0.75}), resampling=Resampling(resamples=60))
    page = render(analysis)
    parsed(page)
    ((votes, rate, _, verdict),) = cells(page)["primary", "base against see"]
    assert (rate.split()[:2], verdict) == (["\N{MINUS SIGN}50", "points"], "see preferred")
    assert votes == str(len(liked({"base": 0, "see": 0})))
    assert "see is preferred to base (+50 points in the share of likes" in headline(analysis)
    assert page.count('<div class="forest"') == 2
    assert [f"{row.model} {percent(row.share)}" for row in analysis.questions[0].liked] == ["see 75%", "base 25%"]
    alone = render(analyze(study, liked({"base": 0.25}), resampling=Resampling(resamples=60)))
    assert alone.count('<div class="forest"') == 1


@pytest.mark.parametrize(
    ("title", "heading"),
    [
        ("Pilot", "Pilot: what"),
        ("Which is better?", "Which is better? What"),
        ("So.", "So. What"),
        ("a b ", "a b: what"),
    ],
)
def test_titles_keep_their_own_punctuation(title: str, heading: str) -> None:
    assert titled(title, "what") == heading


def test_labels_of_charts_stand_where_no_line_is(analysis: Analysis) -> None:
    """No text shares a drawing with an interval, the dashed line or the grid below the axis."""
    for drawing in re.findall(r"<svg.*?</svg>", render(analysis), re.DOTALL):
        lines = [float(end) for end in re.findall(r'<line class="(?:rule|reference)"[^>]* y2="([\d.]+)"', drawing)]
        texts = [float(at) for at in re.findall(r'<text [^>]*y="([\d.]+)"', drawing)]
        assert all(at - 9 > end for at in texts for end in lines)
        assert not (texts and 'class="outer"' in drawing)


def test_a_page_says_where_strengths_are_not_finite_or_missing() -> None:
    study = made_study(questions=QUESTIONS[:1])
    wins = [judgement("first", prompt=f"p {at}", number=at) for at in range(12)]
    assert "no bound" in render(analyze(study, wins, resampling=Resampling(resamples=20)))
    apart = [judgement("first", sources=sources, prompt=f"p {sources}") for sources in (("a", "b"), ("c", "d"))]
    assert "There are no strengths" in render(analyze(study, apart, resampling=Resampling(resamples=20)))


def test_only_all_is_100_percent_and_only_nothing_0_percent() -> None:
    assert [percent(share) for share in (0.0, 1e-4, 0.004, 0.5, 0.996, 1.0)] == [
        "0%",
        "<1%",
        "<1%",
        "50%",
        ">99%",
        "100%",
    ]


def test_names_and_prompts_are_never_markup_and_never_formulas(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    given = [
        judgement(
            "first", sources=(evil, "b"), rater=evil, prompt=f"{evil} {at}", category=evil if at % 2 else "", number=at
        )
        for at in range(6)
    ]
    for kind in ("study", "collect"):
        page = render(analyze(made_study(kind, QUESTIONS[:1], title=evil), given, resampling=Resampling(resamples=20)))
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        parsed(page)
    given = [judgement("first", sources=("=1+1", "b"), number=at, prompt=f"p {at}") for at in range(3)]
    write_analysis(analyze(made_study(questions=QUESTIONS[:1]), given, resampling=Resampling(resamples=20)), tmp_path)
    with (tmp_path / "analysis.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["left"] == "'=1+1"


def test_table_and_json_have_every_comparison(analysis: Analysis, tmp_path: Path) -> None:
    page = write_analysis(analysis, tmp_path / "new" / "folder")
    assert page.name == "analysis.html"
    with (page.parent / "analysis.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COMPARISON_COLUMNS
    main = [row for row in rows if row["raters_counted"] == "kept" and not row["category"]]
    own = [row for result in analysis.questions for row in result.comparisons]
    assert [float(row["win_rate"]) for row in main] == pytest.approx([row.rate for row in own], abs=1e-5)
    tested = {(row["question"], row["left"], row["right"]): float(row["p_holm"]) for row in main if row["p_holm"]}
    assert tested == pytest.approx({row.key: row.adjusted for row in own if row.question}, rel=1e-4)
    assert {row["family"] for row in main} == {"primary", ""}
    assert {row["question"] for row in main} == {"preference", "alignment", "all"}
    assert len(rows) == len(own) * (1 + 3) + len(analysis.everybody)
    found = json.loads((page.parent / "analysis.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (found["tested"], found["inattentive"]) == (analysis.tested, ["r04"])
    assert found["questions"][0]["comparisons"][0]["rate"] == analysis.questions[0].comparisons[0].rate


def test_a_collection_has_rankings_instead_of_comparisons(tmp_path: Path) -> None:
    given = [
        judgement(
            "first" if at % 3 else "tie",
            group=f"g{at:03d}",
            sources=("0.png", "1.png"),
            prompt=f"prompt {at}",
            number=at,
        )
        for at in range(MOST_RANKINGS + 5)
    ]
    page = write_analysis(
        analyze(made_study("collect", QUESTIONS[:1]), given, resampling=Resampling(resamples=20)), tmp_path
    )
    text = page.read_text(encoding="utf-8")
    parsed(text)
    assert "Holm" not in text
    assert 'class="warning"' not in text
    assert "\N{MINUS SIGN}0.00" not in text
    assert text.count('<ol class="rank">') == MOST_RANKINGS
    rows = (tmp_path / "analysis.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 2 * len(given)


@pytest.fixture
def voted(tmp_path: Path) -> tuple[Path, list[str]]:
    """A study on disk in which two raters always choose the first model, and one always the second."""
    study = small_study(tmp_path / "study", pairs_of(4), kind="study", raters_per_pair=3)
    store, names = Store.open(study), []
    for chosen in ("first", "first", "second"):
        name, _ = store.add_rater()
        store.consent(name)
        while (show := store.turn(name).show) is not None:
            side = "left" if (chosen == "first") != show.flipped else "right"
            store.vote(name, show.token, side, key=f"{show.token}-key", seconds=0.4)
        names.append(name)
    store.close()
    return tmp_path / "study", names


def test_the_command_writes_the_files(voted: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, names = voted
    command = ["study", "analyze", str(folder), "--out", str(tmp_path / "out"), "--resamples", "100"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "no verdict yet: 3 of at least 5 raters" in result.output
    found = json.loads((tmp_path / "out" / "analysis.json").read_text(encoding="utf-8"))
    (row,) = found["questions"][0]["comparisons"]
    assert (row["left"], row["right"], row["wins"], row["losses"]) == ("a", "b", 8, 4)
    assert all(rater["fast"] for rater in found["raters"])
    result = CliRunner().invoke(app, [*command, "--leave-out", names[2]])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "analysis.json").read_text(encoding="utf-8"))
    assert (found["questions"][0]["comparisons"][0]["losses"], found["excluded"]) == (0, [names[2]])


def test_the_command_names_a_later_change_of_the_aim(voted: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = voted
    text = (folder / NAME).read_text(encoding="utf-8")
    (folder / NAME).write_text(text.replace("primary: null", "primary: diversity"), encoding="utf-8")
    result = CliRunner().invoke(app, ["study", "analyze", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "warning: study.yaml was changed after 12 answers (to: diversity" in result.output
    found = json.loads((tmp_path / "out" / "analysis.json").read_text(encoding="utf-8"))
    assert (found["aim"]["primary"], found["changes"][0]["aim"]["primary"]) == (None, "diversity")


def test_the_command_leaves_out_who_the_owner_excluded(voted: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, names = voted
    store = Store.open(open_study(folder))
    store.exclude(names[2])
    store.close()
    analysis, _ = analyze_folder(folder, tmp_path / "out", resampling=Resampling(resamples=20), progress=False)
    assert (analysis.excluded, analysis.counts.excluded, analysis.counts.votes) == ((names[2],), 4, 8)


def test_the_command_names_what_is_wrong(voted: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = voted
    with pytest.raises(ConfigError, match="has no rater 'nobody'"):
        analyze_folder(folder, tmp_path / "out", leave_out=["nobody"], progress=False)
    (tmp_path / "file").write_text("taken", encoding="utf-8")
    with pytest.raises(ConfigError, match="--out"):
        analyze_folder(folder, tmp_path / "file", progress=False)
    empty = small_study(tmp_path / "empty")
    with pytest.raises(DataError, match="no vote to analyse yet"):
        analyze_folder(empty.folder, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
