from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from seedpo.reports.hacking_benchmark.analysis import compare, drawn, pool, pools, read_measured
from seedpo.reports.hacking_benchmark.page import answer, frontier_figure, summary
from seedpo.reports.hacking_benchmark.results import write_results
from seedpo.training.sweeps.hacking_grid import Setting, Trial, settings_of
from tests.reports.hacking_benchmark.worlds import GRID, Value, write_runs


def hill(setting: Setting, seed: int, proxy: float) -> float:
    """Truth rises to 2 at a proxy of 1, and falls: the same whatever is trained, but for the seed."""
    return {0.0: 1.0, 1.0: 2.0, 2.0: 1.0, 3.0: 0.0}[proxy] + 0.1 * seed


def see_gains(gain: float, noise: float = 0.0) -> Value:
    """The hill, higher by ``gain`` with the entropy term, and by ``noise`` with alternating sign from seed to seed."""

    def value(setting: Setting, seed: int, proxy: float) -> float:
        more = gain + noise * (-1) ** seed if setting.role == "see" else 0.0
        return hill(setting, seed, proxy) + more

    return value


def headlines(folder: Path, *, seeds: int = 3) -> dict[str, tuple[str, float]]:
    measured, _ = read_measured(folder, settings_of(GRID), seeds=seeds)
    return {one.key: (one.verdict, one.gap.mean) for one in compare(measured) if one.headline}


class TestVerdict:
    def test_better_equal_and_worse(self, tmp_path: Path) -> None:
        quantities = {"truth": see_gains(0.5), "free_spread": see_gains(0.0), "pairwise_diversity": see_gains(-0.25)}
        found = headlines(write_runs(tmp_path, quantities))
        assert {key: word for key, (word, _) in found.items()} == {
            "truth": "higher",
            "free_spread": "not shown",
            "pairwise_diversity": "lower",
        }
        assert [gap for _, gap in found.values()] == pytest.approx([0.5, 0.0, -0.25])

    def test_a_gain_that_changes_sign_between_seeds_is_not_shown(self, tmp_path: Path) -> None:
        assert headlines(write_runs(tmp_path, {"truth": see_gains(0.1, noise=0.3)}))["truth"][0] == "not shown"

    def test_three_seeds_that_agree_but_scatter_are_not_enough(self, tmp_path: Path) -> None:
        """Gaps of 0.7, 0.1 and 0.7: the bootstrap leaves out 0, Student's t does not."""
        measured, _ = read_measured(
            write_runs(tmp_path, {"truth": see_gains(0.4, noise=0.3)}), settings_of(GRID), seeds=3
        )
        head = next(one for one in compare(measured) if one.headline)
        assert head.gap.low > 0 > head.gap.t_low
        assert head.verdict == "not shown"

    def test_a_gain_on_half_of_the_prompts_is_not_shown(self, tmp_path: Path) -> None:
        """The seeds agree to the last digit; the prompts, where they are known, do not."""
        quantities = {"truth": see_gains(0.5), "free_spread": see_gains(0.5)}
        alike = write_runs(tmp_path / "alike", quantities, prompts=lambda setting: (-1.0, 1.0))
        found = compare(read_measured(alike, settings_of(GRID), seeds=3)[0], resamples=20)
        assert {one.verdict for one in found if one.headline and one.key in quantities} == {"higher"}
        apart = write_runs(
            tmp_path / "apart", quantities, prompts=lambda setting: (-1.0, 1.0) if setting.role == "see" else (0.0, 0.0)
        )
        for path in apart.glob("*/samples/step-*.json"):  # a figure that is no mean of its prompts' values
            rows = json.loads(path.read_text())
            rows["free_spread"] = [value**2 + 1 for value in rows["free_spread"]]
            path.write_text(json.dumps(rows))
        measured, _ = read_measured(apart, settings_of(GRID), seeds=3)
        heads = {one.key: one for one in compare(measured, resamples=20) if one.headline}
        assert (heads["truth"].over_prompts, heads["truth"].verdict) == (True, "not shown")
        assert heads["truth"].gap.low < 0 < heads["truth"].gap.t_low
        assert heads["truth"].gap.mean == pytest.approx(0.5)
        assert (heads["free_spread"].over_prompts, heads["free_spread"].verdict) == (False, "higher")

    def test_a_trial_is_held_against_the_same_settings_without_it(self, tmp_path: Path) -> None:
        """The option gains 0.5 where it is tried, but no more than another beta of the base method does."""
        grid = replace(GRID, trials={"bonus": Trial(on="base", changes={"lora_rank": 2})})

        def value(setting: Setting, seed: int, proxy: float) -> float:
            return hill(setting, seed, proxy) + (0.5 if setting.option or setting.beta == 80 else 0.0)

        folder = write_runs(tmp_path, {"truth": value}, grid=grid)
        measured, missing = read_measured(folder, settings_of(grid), seeds=3)
        assert not missing
        tried = [one for one in measured if one.setting.option]
        assert [one.setting.label for one in tried] == ["bonus-base-beta=10", "bonus-base-beta=20"]
        found = {(one.left, one.right): one for one in compare(measured) if one.key == "truth"}
        assert found["bonus", "the same without it"].gap.mean == pytest.approx(0.5)
        assert found["bonus", "the same without it"].verdict == "higher"
        assert found["bonus", "base at any beta"].verdict == "not shown"
        assert all("bonus" not in one.setting.label for members in pools(measured).values() for one in members)

    def test_the_base_method_at_any_beta_is_the_rival(self, tmp_path: Path) -> None:
        """SEE beats the base method at its beta everywhere, but a control of another beta is as good."""

        def value(setting: Setting, seed: int, proxy: float) -> float:
            good = setting.role == "see" or setting.beta == 80
            return hill(setting, seed, proxy) + (1.0 if good else 0.0)

        measured, _ = read_measured(write_runs(tmp_path, {"truth": value}), settings_of(GRID), seeds=3)
        found = {(one.left, one.right): one.gap for one in compare(measured) if one.key == "truth"}
        assert found["SEE", "base at any beta"].mean == 0
        assert found["SEE", "control"].mean == 0
        assert found["see-beta=10-relative=3", "base at its beta"].mean == pytest.approx(1)
        assert found["see-beta=10-relative=3", "its control"].mean == pytest.approx(1)
        assert found["see-beta=20-relative=3", "its control"].mean == 0

    def test_one_seed_shows_nothing(self, tmp_path: Path) -> None:
        measured, _ = read_measured(
            write_runs(tmp_path, {"truth": see_gains(9.0)}, seeds=1), settings_of(GRID), seeds=1
        )
        head = next(one for one in compare(measured) if one.headline)
        assert head.verdict == "not shown"
        assert "one seed, so no interval" in answer("spo", head)

    def test_two_seeds_show_nothing_however_well_they_agree(self, tmp_path: Path) -> None:
        folder = write_runs(tmp_path, {"truth": see_gains(9.0)}, seeds=2)
        measured, _ = read_measured(folder, settings_of(GRID), seeds=2)
        head = next(one for one in compare(measured) if one.headline)
        assert head.gap.sign == 1
        assert head.verdict == "not shown"
        assert "2 seeds are too few to show anything" in answer("spo", head)

    def test_how_much_of_the_climb_is_compared(self, tmp_path: Path) -> None:
        """SEE starts where the base method has climbed two thirds of its way."""
        folder = write_runs(tmp_path, {"truth": hill}, start=lambda setting: 2.0 if setting.role == "see" else 0.0)
        measured, _ = read_measured(folder, settings_of(GRID), seeds=3)
        head = next(one for one in compare(measured) if one.headline)
        assert head.covered == pytest.approx(1 / 3)
        assert "over 33.3 % of the other's climb" in answer("spo", head)

    def test_no_common_proxies(self, tmp_path: Path) -> None:
        folder = write_runs(tmp_path, {"truth": hill}, start=lambda setting: 9.0 if setting.role == "see" else 0.0)
        measured, _ = read_measured(folder, settings_of(GRID), seeds=3)
        head = next(one for one in compare(measured) if one.headline)
        assert head.verdict == "not comparable"
        assert "no seed has proxies that both reach" in answer("spo", head)
        assert "no common proxies" in summary({"spo": [head]})

    def test_words_name_the_method_the_quantity_and_the_numbers(self, tmp_path: Path) -> None:
        folder = write_runs(tmp_path, {"truth": see_gains(0.5), "free_spread": see_gains(-0.5)})
        measured, _ = read_measured(folder, settings_of(GRID), seeds=3)
        found = compare(measured)
        heads = {one.key: one for one in found if one.headline}
        assert answer("spo", heads["truth"]) == (
            "SPO: at equal proxy reward SEE gives more truth than the base method at any beta (mean gap +0.500, "
            "18.5 % of its range in all runs, over 100 % of the other's climb in proxy; bootstrap [0.500, 0.500], "
            "Student's t [0.500, 0.500], higher in 3 of 3 seeds)."
        )
        assert summary({"spo": found}) == (
            "At equal proxy reward the entropy term gives more truth in SPO than the base method at any beta, and less "
            "free spread in SPO than the base method at its best beta."
        )


class TestPools:
    def test_who_is_in_which(self, tmp_path: Path) -> None:
        measured, missing = read_measured(write_runs(tmp_path, {"truth": hill}), settings_of(GRID), seeds=3)
        assert missing == []
        members = {name: [one.setting.label for one in found] for name, found in pools(measured).items()}
        assert members["base at any beta"] == [f"base-beta={beta}" for beta in (10, 20, 30, 40, 80)]
        assert members["control"] == [f"base-beta={beta}" for beta in (20, 30, 40, 80)]
        assert len(members["SEE"]) == 5
        assert members["SEE, absolute"] == ["see-beta=10-absolute=20", "see-beta=20-relative=1"]
        assert {seed: len(found) for seed, found in pool(measured, "truth").items()} == {0: 10, 1: 10, 2: 10}

    def test_unfinished_runs_are_left_out_and_named(self, tmp_path: Path) -> None:
        folder = write_runs(tmp_path, {"truth": hill})
        (folder / "base-beta=10_seed=1" / "finished.json").unlink()
        shutil.rmtree(folder / "see-beta=10-relative=1_seed=0")
        measured, missing = read_measured(folder, settings_of(GRID), seeds=3)
        assert missing == ["base-beta=10_seed=1", "see-beta=10-relative=1_seed=0"]
        assert sorted(measured[0].curves) == [0, 2]

    def test_the_frontier_that_is_drawn(self, tmp_path: Path) -> None:
        measured, _ = read_measured(write_runs(tmp_path, {"truth": hill}), settings_of(GRID), seeds=3)
        line = drawn(pools(measured)["SEE"], "truth")
        assert line is not None
        assert (line.proxy[0], line.proxy[-1]) == (0, 3)
        assert (line.low[0], line.high[0], line.mean[0]) == pytest.approx((2.0, 2.2, 2.1))
        assert line.mean[-1] == pytest.approx(0.1)
        assert drawn(measured, "free_spread") is None


def test_everything_is_written(tmp_path: Path) -> None:
    write_runs(tmp_path / "spo", {"truth": see_gains(0.5), "free_spread": see_gains(0.0)})
    shutil.rmtree(tmp_path / "spo" / "base-beta=10_seed=2")
    lines = write_results(tmp_path, {"spo": GRID}, seeds=3, command="seedpo bench hacking --out OUT")
    assert lines[0].startswith("At equal proxy reward the entropy term gives more truth in SPO")
    page = (tmp_path / "hacking.md").read_text()
    for text in (
        "seedpo bench hacking --out OUT",
        "Left out, since they are not finished: spo/base-beta=10_seed=2",
        *lines[:2],
    ):
        assert text in page
    assert "nan" not in page
    assert "| truth | 0 | 2.10 [2.00, 2.20] | 2.60 [2.50, 2.70] | 2.10 [2.00, 2.20] |" in page
    data = json.loads((tmp_path / "hacking.json").read_text())
    head = next(one for one in data["methods"]["spo"]["comparisons"] if one["headline"])
    assert (head["verdict"], round(head["gap"]["mean"], 6)) == ("higher", 0.5)
    assert set(head["gap"]["by_seed"]) == {"0", "1", "2"}
    assert data["missing"] == ["spo/base-beta=10_seed=2"]
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures == ["spo-free-spread.svg", "spo-truth.svg"]
    assert all(f"![{name}]({name})" in page for name in pictures)
    drawing = ET.fromstring((tmp_path / "spo-truth.svg").read_text())
    assert "".join(drawing.itertext()).count("base at any beta") >= 1


def test_nothing_to_draw(tmp_path: Path) -> None:
    measured, missing = read_measured(tmp_path, settings_of(GRID), seeds=1)
    assert len(missing) == 10
    assert frontier_figure("SPO", measured, "truth") is None
    assert all(one.verdict == "not comparable" for one in compare(measured))
