"""The run that breaks down, and what holds it; figure and table from made-up lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.winner_error import FAILING, SETTINGS, growth, growths, lines_of, panels, run, table
from seedpo.reports.figures.drawing import draw_panels
from seedpo.settings import merge
from seedpo.training.configuration import resolve_config
from tests.training.toys import cpu_accelerator

SHORT: dict[str, Any] = {
    "evaluate_every": 0,
    "evaluation": {"num_prompts": 2, "images_per_prompt": 2, "num_inference_steps": 2},
}
"""Evaluations of no size, which take no part in training."""


def raised(path: Path) -> set[str]:
    """Names of the alarms of a run."""
    file = path / "alarms.jsonl"
    return {json.loads(line)["name"] for line in file.read_text().splitlines()} if file.exists() else set()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_winner_s_error_explodes_unless_the_loser_is_scaled_or_the_policy_anchored(
    tmp_path: Path, seed: int
) -> None:
    accelerator = cpu_accelerator(resolve_config("diffusion-dpo", merge(dict(FAILING), SHORT)))
    paths = {name: run(tmp_path, name, seed, accelerator=accelerator, **SHORT) for name in SETTINGS}
    grown = {name: growth(lines_of(path, "train")[-10:], "chosen") for name, path in paths.items()}
    assert grown["plain"] > 1.0
    assert grown["loser_scale"] < grown["plain"] / 2
    assert grown["anchor_kl"] < grown["plain"] / 4
    assert "winner_error" in raised(paths["plain"])


def made_up(folder: Path, seeds: int) -> None:
    """Runs whose errors grow by a step's number, twice as fast with seed 1."""
    for name in SETTINGS:
        for seed in range(seeds):
            lines: list[dict[str, Any]] = [
                {
                    "step": step,
                    "kind": "train",
                    "error/policy_chosen": 0.2 * (1 + (1 + seed) * step),
                    "error/reference_chosen": 0.2,
                    "error/policy_rejected": 0.4,
                    "error/reference_rejected": 0.4,
                }
                for step in range(1, 21)
            ]
            lines += [
                {"step": step, "kind": "evaluation", "truth": 1.0 - seed, "reward/scenes-scorer": 12.0}
                for step in (0, 20)
            ]
            path = folder / f"{name}-{seed}"
            path.mkdir(parents=True)
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_growth_is_of_means_and_drawn_with_the_range_of_the_seeds(tmp_path: Path) -> None:
    made_up(tmp_path, 2)
    path = tmp_path / "plain-0"
    assert growth(lines_of(path, "train")[:3], "chosen") == pytest.approx(2.0)
    assert growths(path, "chosen") == pytest.approx({step: step - 2 for step in range(5, 21)})
    winner, loser, truth = panels(tmp_path, 2)
    assert [line.label for line in winner.lines] == list(SETTINGS)
    line = winner.lines[0]
    assert (line.y[0], line.low[0], line.high[0]) == pytest.approx((4.5, 3.0, 6.0))
    assert set(loser.lines[0].y) == {0.0}
    assert truth.lines[0].y == [0.5, 0.5]
    draw_panels([winner, loser, truth], tmp_path / "figure.svg", width=6.9)
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    assert table(tmp_path, 2)[2] == "| plain | 15.50, 31.00 | 1.00, 0.00 | 12.00, 12.00 |"


def test_a_finished_run_is_kept(tmp_path: Path) -> None:
    (tmp_path / "plain-0").mkdir()
    (tmp_path / "plain-0" / "finished.json").write_text("{}")
    assert run(tmp_path, "plain", 0) == tmp_path / "plain-0"
