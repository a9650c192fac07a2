from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seedpo.cli.main import app
from seedpo.core.verdicts import Difference, Outcome
from seedpo.errors import ConfigError, SeedpoError
from seedpo.reports.frontier.panels import panels
from seedpo.reports.frontier.reading import read_courses
from seedpo.reports.frontier.results import FREE, Results, results_of
from seedpo.reports.frontier.writing import write_frontier
from tests.reports.evaluated import write_evaluation
from tests.reports.frontier.made import HACKS, LEARNS, Row, rows, write
from tests.reports.synthetic import Fate, write_run


def results(folder: Path, content: list[Row], **options: Any) -> Results:
    return results_of(*read_courses([write(folder / "scores.csv", content)]), **options)


CASES: Mapping[str, tuple[dict[str, Any], Outcome, int]] = {
    "hacking": ({"truth": HACKS}, Outcome.HACKING, 10),
    "collapse": ({"truth": HACKS, "proxy": (0.0, 3.0, 2.0, 1.0)}, Outcome.COLLAPSE, 10),
    "learning": ({"truth": LEARNS}, Outcome.LEARNING, 30),
    "nothing moves": ({"truth": (1.0, 1.0, 1.0, 1.0)}, Outcome.HEALTHY, 30),
    "two evaluations": ({"truth": HACKS[1:3], "proxy": (0.0, 1.0)}, Outcome.UNCLEAR, 0),
    "one evaluation": ({"truth": (1.0,), "proxy": (1.0,)}, Outcome.NOT_MEASURED, 0),
    "a proxy that never moves": ({"truth": HACKS, "proxy": (1.0,) * 4}, Outcome.HACKING, 10),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_and_where_to_stop(tmp_path: Path, case: str) -> None:
    settings, outcome, stop = CASES[case]
    found = results(tmp_path, list(rows(**settings)))
    (one,) = found.trained
    assert one.outcome is outcome
    if case != "nothing moves":  # there the best is chance
        assert [row.step for row in found.stops] == [stop]
    assert (found.figures.proxy, found.figures.held_out) == ("reward/proxy", ("reward/judge",))
    words = write_frontier([tmp_path / "scores.csv"], tmp_path / "out")
    assert str(outcome) in words[0]


class TestEqualProxy:
    def test_one_seed_says_something_of_its_prompts_only(self, tmp_path: Path) -> None:
        better = list(rows("new", truth=[value + 0.5 for value in HACKS]))
        for row in better:
            row["judge"] += 0.02 * "bdacehgf".index(row["prompt"]) - 0.07
        found = results(tmp_path, [*rows("base"), *better, *rows("same")])
        verdicts = {(row.left, row.right): row for row in found.comparisons}
        assert set(verdicts) == {("new", "base"), ("same", "base")}
        row = verdicts["new", "base"]
        assert (row.verdict, row.over_seeds, row.over_prompts) == (Difference.HIGHER, False, True)
        assert row.gap.mean == pytest.approx(0.5, abs=0.01)
        assert row.gap.low < row.gap.mean < row.gap.high
        assert math.isnan(row.gap.t_low)
        assert verdicts["same", "base"].verdict is Difference.NOT_SHOWN

    def test_a_gain_of_half_the_prompts_is_not_shown(self, tmp_path: Path) -> None:
        new = list(rows("new"))
        for row in new:
            row["judge"] += 3.0 if row["prompt"] in "abcd" else -2.5
        (row,) = results(tmp_path, [*rows("base"), *new]).comparisons
        assert row.gap.mean == pytest.approx(0.25, abs=0.01)
        assert row.verdict is Difference.NOT_SHOWN

    def test_the_values_where_a_proxy_is_first_reached_must_agree(self, tmp_path: Path) -> None:
        """The new run has but a late peak: its frontier is higher at every proxy, its values before it are lower."""
        new = list(rows("new", truth=[1.0, 0.0, 1.0, 3.0]))
        base = list(rows("base", truth=[1.0, 2.0, 2.1, 2.2]))
        for row in new:
            row["judge"] += 0.02 * "bdacehgf".index(row["prompt"]) - 0.07
        (row,) = results(tmp_path, [*base, *new]).comparisons
        assert row.gap.sign == 1
        assert row.reached is not None
        assert row.reached.sign == -1
        assert row.verdict is Difference.NOT_SHOWN

    def test_three_seeds_say_something_of_others(self, tmp_path: Path) -> None:
        content = [row for seed in range(3) for row in rows("base", seed=seed)]
        content += [
            row for seed in range(3) for row in rows("new", seed=seed, truth=[v + 0.5 + 0.02 * seed for v in HACKS])
        ]
        (row,) = results(tmp_path, content).comparisons
        assert (row.verdict, row.over_seeds) == (Difference.HIGHER, True)
        assert row.gap.t_low > 0

    def test_the_free_baselines_are_one_pool(self, tmp_path: Path) -> None:
        """The strength reaches the base's own frontier, mixing lies below it: the better one counts."""
        base = list(rows("base"))
        weaker = [
            {**row, "step": 30, "strength": strength}
            for strength, step in ((0.3, 10), (0.6, 20))
            for row in base
            if row["step"] == step
        ]
        mixed = [{**row, "step": 30, "mixing": 2.0, "judge": row["judge"] - 1.0} for row in base if row["step"] == 20]
        found = results(tmp_path, [*base, *weaker, *mixed])
        assert [(one.kind, one.names) for one in found.free] == [
            ("strength", ("strength-0", "strength-0.3", "strength-0.6", "as it is")),
            ("mixing", ("strength-0", "mixing-2", "as it is")),
        ]
        (row,) = found.comparisons
        assert (row.left, row.right, row.gap.mean) == ("base", FREE, pytest.approx(0.0, abs=1e-9))

    def test_free_baselines_of_several_seeds_are_one_line(self, tmp_path: Path) -> None:
        content = [row for seed in range(3) for row in rows("base", seed=seed)]
        weaker = [{**row, "step": 30, "strength": 0.5} for row in content if row["step"] == 20]
        for row in weaker:
            row["judge"] += row["seed"]
        found = results(tmp_path, [*content, *weaker])
        assert [sorted(one.series.curves) for one in found.free] == [[0, 1, 2]]
        line = panels(found)["reward/judge"].lines[0]
        assert (line.role, list(line.y)) == ("free", pytest.approx([1, 2, 0], abs=0.02))

    def test_other_seeds_are_not_compared(self, tmp_path: Path) -> None:
        found = results(tmp_path, [*rows("base"), *rows("new", seed=1)])
        assert [row.verdict for row in found.comparisons] == [Difference.NOT_COMPARABLE]
        assert any("share no seed" in note for note in found.notes)


def test_seeds_that_share_no_step(tmp_path: Path) -> None:
    """Each is judged by itself; there is no mean to draw or to stop at."""
    other = [{**row, "step": row["step"] + 5} for row in rows(seed=1)]
    path = write(tmp_path / "scores.csv", [*rows(), *other])
    write_frontier([path], tmp_path / "out")
    found = results_of(*read_courses([path]))
    assert [verdict.outcome for verdict in found.trained[0].verdicts.values()] == [Outcome.HACKING] * 2
    assert found.stops == ()
    assert [line.faint for line in panels(found)["reward/judge"].lines] == [False], "the frontier alone"


class TestPrompts:
    def test_only_common_prompts_count(self, tmp_path: Path) -> None:
        """A prompt of the new run alone, and one whose judge is missing at one step, change no number."""
        base, new = list(rows("base", prompts="abcdefg")), list(rows("new", prompts="abcdefgh"))
        for row in new:
            if row["prompt"] == "g" and row["step"] == 20:
                row["judge"] = None
        found = results(tmp_path, [*base, *new])
        point = found.trained[1].curves["reward/judge"][0]
        assert point.per_prompt is not None
        assert point.per_prompt.prompts == tuple("abcdef")
        assert point.value == pytest.approx(sum(point.per_prompt.values) / 6)
        assert any(note.startswith("6 of 8 prompts") for note in found.notes)

    def test_no_common_prompt_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"base.*new"):
            results(tmp_path, [*rows("base", prompts="abcdef"), *rows("new", prompts="ghijkl")])


class TestNames:
    def more(self) -> list[Row]:
        return [
            {**row, "second": row["judge"], "clip_diversity": 0.3, "my_diversity": 0.2, "residual": 0.1, "FID-5k": 9.0}
            for row in rows()
        ]

    def test_by_default_all_that_is_not_optimised_judges(self, tmp_path: Path) -> None:
        found = results(tmp_path, self.more()).figures
        assert found.proxy == "reward/proxy"
        assert found.held_out == ("reward/judge", "reward/second")
        assert found.diversity == ("clip_diversity", "reward/my_diversity")

    def test_names_are_taken_as_they_are_written(self, tmp_path: Path) -> None:
        options = {"proxy": "judge", "held_out": ["second"], "diversity": ["my_diversity"]}
        found = results(tmp_path, self.more(), **options).figures
        assert (found.proxy, found.held_out) == ("reward/judge", ("reward/second",))
        assert found.diversity == ("reward/my_diversity",)

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            ({"proxy": "proxi"}, ("--proxy", "'proxi'", "'proxy'", "judge, second")),
            ({"held_out": ["judgee"]}, ("--held-out", "'judge'")),
            ({"held_out": ["proxy"]}, ("--held-out", "proxy")),
            ({"proxy": "clip_diversity", "diversity": ["clip_diversity"]}, ("--diversity", "clip_diversity")),
            ({"held_out": ["residual"]}, ("--held-out", "residual", "lower")),
            ({"held_out": ["FID-5k"]}, ("--held-out", "FID-5k", "lower")),
        ],
    )
    def test_what_cannot_be_meant(self, tmp_path: Path, options: dict[str, Any], parts: tuple[str, ...]) -> None:
        with pytest.raises(ConfigError) as error:
            results(tmp_path, self.more(), **options)
        for part in parts:
            assert part in str(error.value), part

    def test_a_run_that_lacks_the_proxy(self, tmp_path: Path) -> None:
        other = [{("third" if key == "proxy" else key): value for key, value in row.items()} for row in rows("new")]
        with pytest.raises(ConfigError, match=r"new.*proxy.*--proxy"):
            results(tmp_path, [*rows("base"), *other])

    def test_nothing_held_out(self, tmp_path: Path) -> None:
        content = [{key: value for key, value in row.items() if key != "judge"} for row in rows()]
        found = results(tmp_path, content)
        assert found.trained[0].outcome is Outcome.NOT_MEASURED
        assert any("--held-out" in note for note in found.notes)

    def test_free_baselines_alone_are_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="strength"):
            results(tmp_path, [{**row, "strength": 0.5} for row in rows()])


class TestPlaces:
    def test_run_folders_pool_their_seeds(self, tmp_path: Path) -> None:
        for seed in range(3):
            write_run(tmp_path / "runs" / f"base_seed={seed}", seed=seed)
            fate = Fate(hack=0.0)
            write_run(tmp_path / "runs" / f"new_seed={seed}", seed=seed, gamma=3.0, fate=fate)
        found = results_of(*read_courses([tmp_path / "runs"]))
        outcomes = {one.series.label: (one.outcome, sorted(one.series.curves)) for one in found.trained}
        assert outcomes == {"base": (Outcome.HACKING, [0, 1, 2]), "new": (Outcome.LEARNING, [0, 1, 2])}
        assert (found.figures.proxy, found.figures.held_out) == ("reward/scenes-scorer", ("truth",))
        assert set(found.figures.diversity) == {"pairwise_diversity", "free_spread"}
        truth = next(row for row in found.comparisons if row.key == "truth")
        assert (truth.left, truth.right, truth.verdict) == ("new", "base", Difference.HIGHER)

    def test_runs_that_are_named_by_their_seed_have_the_name_of_their_folder(self, tmp_path: Path) -> None:
        for seed in range(2):
            write_run(tmp_path / "mine" / f"seed={seed}", seed=seed)
        found = results_of(*read_courses([tmp_path / "mine"]))
        assert [(one.series.label, sorted(one.series.curves)) for one in found.trained] == [("mine", [0, 1])]
        one = results_of(*read_courses([tmp_path / "mine" / "seed=1"])).trained[0]
        assert (one.series.label, list(one.series.curves)) == ("mine", [1])

    def test_an_evaluation_over_training(self, tmp_path: Path) -> None:
        folder = write_evaluation(tmp_path / "curves", labels=("base", "see"), steps=(0, 50, 100))
        found = results_of(*read_courses([folder]))
        assert [one.series.label for one in found.trained] == ["base", "see"]
        assert found.trained[0].curves["reward/pickscore"].steps == (0, 50, 100)
        assert (found.figures.proxy, found.figures.held_out) == ("reward/pickscore", ("reward/aesthetic", "truth"))
        assert found.trained[1].series.has_prompts("reward/aesthetic")

    def test_runs_and_tables_together(self, tmp_path: Path) -> None:
        write_run(tmp_path / "base")
        content = [{"run": "theirs", "step": step, "scenes-scorer": 0.2 + step / 100, "truth": -0.1} for step in (0, 9)]
        found = results_of(*read_courses([tmp_path / "base", write(tmp_path / "theirs.csv", content)]))
        assert [one.outcome for one in found.trained] == [Outcome.HACKING, Outcome.UNCLEAR]

    def test_one_run_in_two_files_is_refused(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / name, list(rows())) for name in ("a.csv", "b.csv")]
        with pytest.raises(SeedpoError, match=r"base.*seed 0.*a\.csv.*b\.csv"):
            read_courses(paths)

    def test_runs_of_other_proxies_are_not_compared(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a")
        changes = {"evaluation": {"rewards": ["pickscore"], "metrics": ["truth"]}}
        write_run(tmp_path / "b", beta=9.0, changes=changes)
        with pytest.raises(ConfigError, match=r"scenes-scorer.*pickscore"):
            results_of(*read_courses([tmp_path / "a", tmp_path / "b"]))

    def test_a_place_that_is_named_twice_counts_once(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv", list(rows()))
        assert len(read_courses([path, path, tmp_path / "." / "a.csv"])[0]) == 1

    def test_without_intervals_the_page_says_so(self, tmp_path: Path) -> None:
        content = list(rows(prompts="abcd"))
        found = results_of(*read_courses([write(tmp_path / "few.csv", content)]))
        assert found.trained[0].outcome is Outcome.UNCLEAR
        assert any(note.startswith("No interval is known of judge") for note in found.notes)
        found = results_of(*read_courses([write(tmp_path / "enough.csv", list(rows()))]))
        assert not any(note.startswith("No interval") for note in found.notes)

    def test_the_order_of_prompts_says_nothing(self, tmp_path: Path) -> None:
        content = list(rows())
        content[8:16] = reversed(content[8:16])
        found = results_of(*read_courses([write(tmp_path / "turned.csv", content)]))
        assert not any("have a value in every evaluation" in note for note in found.notes)

    def test_what_is_no_run(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for place in (tmp_path / "empty", tmp_path / "missing"):
            with pytest.raises(SeedpoError, match=place.name):
                read_courses([place])


def test_the_charts(tmp_path: Path) -> None:
    base = list(rows("base"))
    free = [{**row, "step": 30, "strength": 0.5} for row in base if row["step"] == 20]
    content = [{**row, "clip_diversity": 0.3} for row in (*base, *free, *rows("new", truth=LEARNS))]
    found = results(tmp_path, content)
    charts = panels(found)
    assert set(charts) == {"reward/judge", "clip_diversity"}
    lines = charts["reward/judge"].lines
    assert [(line.label, line.role, line.faint) for line in lines] == [
        ("free: strength", "free", False),
        ("base", "base", False),
        ("base", "base", True),
        ("new", "see", False),
        ("new", "see", True),
    ]
    path = lines[2]
    assert (list(path.steps), list(path.ringed)) == ([0, 10, 20, 30], [1])
    assert lines[1].y[0] == pytest.approx(2.0, abs=0.02), "the frontier is flat until the peak"
    assert len(lines[1].low) == len(lines[1].x)
    assert not any(line.ringed for line in charts["clip_diversity"].lines), "diversity judges nothing"


def test_charts_of_many_settings_hold_frontiers_and_best_stops_alone(tmp_path: Path) -> None:
    content = [row for run in "abcd" for row in rows(run)]
    found = results(tmp_path, [{**row, "clip_diversity": 0.3} for row in content])
    charts = panels(found)
    lines = charts["reward/judge"].lines
    assert [(line.label, len(line.x) > 1) for line in lines] == [
        (run, more) for run in "abcd" for more in (True, False)
    ]
    assert not any(line.low for line in lines)
    assert [line.steps for line in lines if line.ringed] == [[10]] * 4
    assert len(charts["clip_diversity"].lines) == 4


def test_everything_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "scores.csv", [*rows("a <b>"), *rows("new", truth=LEARNS)])
    arguments = ["frontier", str(path), "--proxy", "proxy", "--held-out", "judge", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        "frontier-judge.svg", "frontier.html", "frontier.json", "frontier.md",
    ]  # fmt: skip
    data = json.loads((out / "frontier.json").read_text())
    assert [row["outcome"] for row in data["settings"]] == ["reward hacking", "learning"]
    assert data["settings"][0]["verdicts"]["0"]["judge"] == "reward/judge"
    assert data["stops"][0]["step"] == 10
    assert data["comparisons"][0]["verdict"] == "higher"
    page = (out / "frontier.html").read_text()
    assert "a &lt;b&gt;" in page
    assert "a <b>" not in page
    assert not any(word in page for word in ("http://", "https://", "<script", "src="))
    text = (out / "frontier.md").read_text()
    assert "![judge](frontier-judge.svg)" in text
    assert "nan" not in text.lower()
    assert ET.fromstring((out / "frontier-judge.svg").read_text()).tag.endswith("svg")
    (tmp_path / "file").write_text("")
    wrong = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "file")])
    assert isinstance(wrong.exception, ConfigError)
