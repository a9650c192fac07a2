from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from seedpo.core.verdicts import Difference, Outcome
from seedpo.reports.frontier.comparisons import Comparison
from seedpo.reports.frontier.series import drawn, pool
from seedpo.reports.hacking_benchmark.analysis import End, compare, ends, pools, read_measured, series_of
from seedpo.training.sweeps.hacking_grid import Grid, Setting, settings_of
from tests.reports.hacking_benchmark.worlds import GRID, hill, see_gains, write_runs


def comparisons(folder: Path, *, grid: Grid = GRID, seeds: int = 3, resamples: int = 100) -> list[Comparison]:
    measured, _ = read_measured(folder, settings_of(grid), seeds=seeds)
    return compare(measured, resamples=resamples)


def headlines(folder: Path, **options: int) -> dict[str, Comparison]:
    return {row.key: row for row in comparisons(folder, **options) if row.headline}  # type: ignore[arg-type]


class TestVerdict:
    def test_better_equal_and_worse(self, tmp_path: Path) -> None:
        quantities = {"truth": see_gains(0.5), "free_spread": see_gains(0.0), "pairwise_diversity": see_gains(-0.25)}
        rows = headlines(write_runs(tmp_path, quantities))
        assert {key: row.verdict for key, row in rows.items()} == {
            "truth": Difference.HIGHER,
            "free_spread": Difference.NOT_SHOWN,
            "pairwise_diversity": Difference.LOWER,
        }
        assert [row.gap.mean for row in rows.values()] == pytest.approx([0.5, 0.0, -0.25])

    @pytest.mark.parametrize(
        ("gain", "noise", "seeds"),
        [(0.1, 0.3, 3), (0.4, 0.3, 3), (9.0, 0.0, 1), (9.0, 0.0, 2)],
        ids=["changes sign", "three seeds that scatter", "one seed", "two seeds that agree"],
    )
    def test_what_is_not_shown(self, tmp_path: Path, gain: float, noise: float, seeds: int) -> None:
        folder = write_runs(tmp_path, {"truth": see_gains(gain, noise)}, seeds=seeds)
        row = headlines(folder, seeds=seeds)["truth"]
        assert row.verdict is Difference.NOT_SHOWN
        assert (row.gap.sign == 1) == (seeds == 2), "two seeds that agree are too few"
        if gain == 0.4:
            assert row.gap.low > 0 > row.gap.t_low, "the bootstrap alone would be fooled by 0.7, 0.1 and 0.7"

    def test_a_gain_on_half_of_the_prompts_is_not_shown(self, tmp_path: Path) -> None:
        """The seeds agree to the last digit; the prompts, where they are known, do not."""
        quantities = {"truth": see_gains(0.5), "free_spread": see_gains(0.5)}
        alike = write_runs(tmp_path / "alike", quantities, prompts=lambda setting: (-1.0, 1.0))
        assert {row.verdict for row in headlines(alike, resamples=20).values()} == {Difference.HIGHER}
        apart = write_runs(
            tmp_path / "apart", quantities, prompts=lambda setting: (-1.0, 1.0) if setting.role == "see" else (0.0, 0.0)
        )
        for path in apart.glob("*/samples/step-*.json"):  # a figure that is not the mean of its prompts' values
            rows = json.loads(path.read_text())
            rows["free_spread"] = [value**2 + 1 for value in rows["free_spread"]]
            path.write_text(json.dumps(rows))
        heads = headlines(apart, resamples=20)
        assert (heads["truth"].over_prompts, heads["truth"].verdict) == (True, Difference.NOT_SHOWN)
        assert heads["truth"].gap.low < 0 < heads["truth"].gap.t_low
        assert heads["truth"].gap.mean == pytest.approx(0.5)
        assert (heads["free_spread"].over_prompts, heads["free_spread"].verdict) == (False, Difference.HIGHER)

    def test_a_trial_is_held_against_the_same_settings_without_it(self, tmp_path: Path) -> None:
        """The option gains 0.5 where it is tried, but no more than another beta of the base method does."""
        grid = replace(GRID, trials={"bonus": {"lora_rank": 2}})

        def value(setting: Setting, seed: int, proxy: float) -> float:
            gains = setting.option or setting.beta == 80
            return hill(setting, seed, proxy) + (0.5 + 0.01 * (seed - 1) if gains else 0.0)

        folder = write_runs(tmp_path, {"truth": value}, grid=grid)
        measured, missing = read_measured(folder, settings_of(grid), seeds=3)
        assert not missing
        tried = [member.setting.label for member in measured if member.setting.option]
        assert tried == ["bonus-base-beta=10", "bonus-base-beta=20"]
        rows = {(row.left, row.right): row for row in comparisons(folder, grid=grid) if row.key == "truth"}
        assert rows["bonus", "the same without it"].gap.mean == pytest.approx(0.5)
        assert rows["bonus", "the same without it"].verdict is Difference.HIGHER
        assert rows["bonus", "base at any beta"].verdict is Difference.NOT_SHOWN
        assert all("bonus" not in member.setting.label for members in pools(measured).values() for member in members)

    def test_the_base_method_at_any_beta_is_the_rival(self, tmp_path: Path) -> None:
        """SEE beats the base method at its beta everywhere, but a control of another beta is as good."""

        def value(setting: Setting, seed: int, proxy: float) -> float:
            return hill(setting, seed, proxy) + (1.0 if setting.role == "see" or setting.beta == 80 else 0.0)

        rows = comparisons(write_runs(tmp_path, {"truth": value}))
        gaps = {(row.left, row.right): row.gap.mean for row in rows if row.key == "truth"}
        assert gaps["SEE", "base at any beta"] == gaps["SEE", "control"] == 0
        assert gaps["see-beta=10-relative=3", "base at its beta"] == pytest.approx(1)
        assert gaps["see-beta=10-relative=3", "its control"] == pytest.approx(1)
        assert gaps["see-beta=20-relative=3", "its control"] == 0

    @pytest.mark.parametrize(
        ("start", "covered", "verdict"), [(2.0, 1 / 3, Difference.HIGHER), (9.0, None, Difference.NOT_COMPARABLE)]
    )
    def test_how_much_of_the_climb_is_compared(
        self, tmp_path: Path, start: float, covered: float | None, verdict: Difference
    ) -> None:
        """SEE starts where the base method has climbed two thirds of its way, or beyond its end."""
        folder = write_runs(
            tmp_path, {"truth": see_gains(0.0)}, start=lambda setting: start if setting.role == "see" else 0.0
        )
        row = headlines(folder)["truth"]
        assert row.verdict is verdict
        assert covered is None or row.covered == pytest.approx(covered)


class TestPools:
    def test_who_is_in_which(self, tmp_path: Path) -> None:
        measured, missing = read_measured(write_runs(tmp_path, {"truth": hill}), settings_of(GRID), seeds=3)
        assert missing == []
        members = {name: [member.setting.label for member in rows] for name, rows in pools(measured).items()}
        assert members["base at any beta"] == [f"base-beta={beta}" for beta in (10, 20, 30, 40, 80)]
        assert members["control"] == [f"base-beta={beta}" for beta in (20, 30, 40, 80)]
        assert len(members["SEE"]) == 5
        assert members["SEE, absolute"] == ["see-beta=10-absolute=20", "see-beta=20-relative=1"]
        assert {seed: len(trails) for seed, trails in pool(series_of(measured), "truth").items()} == {
            0: 10,
            1: 10,
            2: 10,
        }

    def test_unfinished_runs_are_left_out_and_named(self, tmp_path: Path) -> None:
        folder = write_runs(tmp_path, {"truth": hill})
        (folder / "base-beta=10_seed=1" / "finished.json").unlink()
        shutil.rmtree(folder / "see-beta=10-relative=1_seed=0")
        measured, missing = read_measured(folder, settings_of(GRID), seeds=3)
        assert missing == ["base-beta=10_seed=1", "see-beta=10-relative=1_seed=0"]
        assert sorted(measured[0].series.curves) == [0, 2]

    def test_every_run_has_the_verdict_of_the_alarms(self, tmp_path: Path) -> None:
        """The hill falls to 0 while the proxy rises; with the term the truth rises to the end."""

        def value(setting: Setting, seed: int, proxy: float) -> float:
            return proxy if setting.role == "see" else hill(setting, seed, proxy)

        measured, _ = read_measured(write_runs(tmp_path, {"truth": value}), settings_of(GRID), seeds=3)
        outcomes = {member.setting.role: member.outcome for member in measured}
        assert outcomes == {"base": Outcome.HACKING, "see": Outcome.LEARNING}

    def test_the_frontier_that_is_drawn(self, tmp_path: Path) -> None:
        measured, _ = read_measured(write_runs(tmp_path, {"truth": hill}), settings_of(GRID), seeds=3)
        line = drawn(series_of(pools(measured)["SEE"]), "truth")
        assert line is not None
        assert (line.proxy[0], line.proxy[-1]) == (0, 3)
        assert (line.low[0], line.high[0], line.mean[0]) == pytest.approx((2.0, 2.2, 2.1))
        assert line.mean[-1] == pytest.approx(0.1)
        assert drawn(series_of(measured), "free_spread") is None


def temperature_and_a_loss(setting: Setting, seed: int, proxy: float) -> float:
    """Truth grows with the temperature; the term costs 2, and 1 more or less from seed to seed, but at the start."""
    cost = 2.0 + (seed - 1) if setting.role == "see" else 0.0
    return setting.weight - cost * (proxy > 0)


def last_step(folder: Path, *, seeds: int = 3) -> dict[tuple[str, str], End]:
    measured, _ = read_measured(folder, settings_of(GRID), seeds=seeds)
    return {(end.rival, end.name): end for end in ends(measured)}


class TestLastStep:
    def test_the_term_is_held_against_its_control_and_the_base_method(self, tmp_path: Path) -> None:
        rows = last_step(write_runs(tmp_path, {"truth": temperature_and_a_loss}))
        names: Sequence[str] = ("proxy", "truth")
        assert set(rows) == {(rival, name) for rival in ("its control", "base at its beta") for name in names}
        control = rows["its control", "truth"]
        assert control.settings == 5
        assert control.by_seed == pytest.approx({0: -1.0, 1: -2.0, 2: -3.0})
        half = 4.302653 / 3**0.5
        assert (control.low, control.mean, control.high) == pytest.approx((-2 - half, -2.0, -2 + half), abs=1e-3)
        assert control.verdict is Difference.NOT_SHOWN, "three seeds that scatter so much show nothing"
        higher = sum(a - beta for beta, a in ((10, 20), (10, 30), (10, 40), (20, 40), (20, 80))) / 5
        base = rows["base at its beta", "truth"]
        assert base.by_seed == pytest.approx({0: higher - 1.0, 1: higher - 2.0, 2: higher - 3.0})
        assert base.verdict is Difference.HIGHER
        assert rows["its control", "proxy"].by_seed == {0: 0.0, 1: 0.0, 2: 0.0}

    def test_a_seed_in_which_a_run_is_missing_is_left_out(self, tmp_path: Path) -> None:
        folder = write_runs(tmp_path, {"truth": temperature_and_a_loss})
        shutil.rmtree(folder / "base-beta=80_seed=1")
        rows = last_step(folder)
        assert set(rows["its control", "truth"].by_seed) == {0, 2}
        assert set(rows["base at its beta", "truth"].by_seed) == {0, 1, 2}

    @pytest.mark.parametrize(("seeds", "verdict"), [(2, Difference.NOT_SHOWN), (3, Difference.LOWER)])
    def test_two_seeds_show_nothing(self, tmp_path: Path, seeds: int, verdict: Difference) -> None:
        def value(setting: Setting, seed: int, proxy: float) -> float:
            return (0.1 * seed - 3.0) * (setting.role == "see")

        folder = write_runs(tmp_path, {"truth": value}, seeds=seeds)
        assert last_step(folder, seeds=seeds)["its control", "truth"].verdict is verdict
