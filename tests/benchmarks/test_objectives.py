from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.objectives import __main__ as command
from benchmarks.objectives import contenders, running
from benchmarks.objectives.analysis import difference_at_equal_proxy, rows
from benchmarks.objectives.contenders import CONTENDERS, LEARNING_RATES, PHASES, WORLDS, run_keys, trial
from benchmarks.objectives.page import blocks, cost_table, draw, proxy_table
from benchmarks.objectives.results import PUBLISHED, Results, collect
from benchmarks.objectives.running import Task, run_task, steps_within
from benchmarks.objectives.selection import by_truth, chosen
from benchmarks.result_tables import APPENDIX_PAGE, DOCS, RESULTS_PAGE, write_blocks
from seedpo.core.verdicts import Difference
from seedpo.scenes.prompts import EVALUATION_PROMPTS
from seedpo.training.configuration import resolve_config


def result(*, proxy: float = 1.0, accuracy: float = 1.0, truth: float = 1.0, failure: str = "") -> dict[str, Any]:
    start = {"step": 0, "proxy": 0.0, "attribute_accuracy": 0.9, "truth": 0.0}
    end = {"step": 1, "proxy": proxy, "attribute_accuracy": accuracy, "truth": truth}
    return {"failure": failure, "lines": [start] if failure else [start, end]}


def test_the_highest_proxy_that_keeps_prompts_right_is_chosen() -> None:
    hacked = result(proxy=5.0, accuracy=0.84, truth=-1.0)
    assert chosen([result(proxy=1.0), hacked, result(proxy=2.0, accuracy=0.86)]) == 2
    assert chosen([hacked, result(proxy=9.0, accuracy=0.5)]) == 0  # all lost it: the highest accuracy
    assert chosen([result(failure="diverged"), result(proxy=-1.0)]) == 1
    assert chosen([result(failure="diverged")]) is None
    assert by_truth([result(truth=1.0), result(truth=2.0, accuracy=0.1), result(failure="diverged")]) == 1


def test_trials_begin_in_the_middle_and_stay_in_the_box() -> None:
    contender = CONTENDERS["diffusion-dpo"]
    rates, betas = zip(*(trial(contender, index) for index in range(8)), strict=True)
    assert rates[0] == pytest.approx(math.sqrt(math.prod(LEARNING_RATES)))
    assert betas[0] == contender.centre == 100.0
    assert all(LEARNING_RATES[0] <= rate <= LEARNING_RATES[1] for rate in rates)
    assert all(10.0 <= beta <= 1000.0 for beta in betas)
    assert len(set(rates)) == len(set(betas)) == 8


def test_the_comparison_sees_no_prompt_latent_or_seed_of_the_search() -> None:
    search, comparison = PHASES["search"], PHASES["comparison"]
    prompts = [set(EVALUATION_PROMPTS[phase.first : phase.last]) for phase in (search, comparison)]
    assert not prompts[0] & prompts[1]
    assert search.seed != comparison.seed
    assert search.first_seed >= comparison.first_seed + 50


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_can_be_trained(name: str, world: str, tmp_path: Path) -> None:
    contender = CONTENDERS[name]
    rate, second = trial(CONTENDERS[contender.twin or name], 0)
    keys = run_keys(world, contender, contender.changes(rate, second), seed=0, folder=tmp_path)
    config = resolve_config(contender.method, keys)
    assert (config.learning_rate, config.model, config.method) == (rate, world, contender.method)
    assert contender.rival in ("", *CONTENDERS)


def task(**changes: Any) -> Task:
    some = Task(world="scenes", contender=CONTENDERS["diffusion-dpo"], phase="search", index=0, rate=1e-3, second=100.0)
    return replace(some, **changes)


def test_a_run_costs_what_was_planned_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(PHASES["search"], last=2)
    monkeypatch.setattr(running, "PHASES", {"search": small})
    monkeypatch.setattr(contenders, "SHARED", {**contenders.SHARED, "batch_size": 2})
    plain = replace(CONTENDERS["diffusion-dpo"], settings={"cache.folder": None, "data": "scenes-pairs"})
    first = run_task(task(contender=plain), tmp_path, budget=30)
    assert (first["steps"], first["planned"], first["failure"]) == (2, 24.0, "")
    assert [line["units"] for line in first["lines"]] == [0, 24]  # two pairs of 2 (2 + 1) units, twice
    assert first["lines"][0]["proxy"] != first["lines"][1]["proxy"]
    monkeypatch.setattr(running, "train_here", None)
    assert run_task(task(contender=plain), tmp_path, budget=30) == json.loads(json.dumps(first))
    kept = json.loads(collect(tmp_path, trials=1, seeds=1).read_text(encoding="utf-8"))["runs"]
    assert list(kept) == ["scenes diffusion-dpo search 0"]


def test_a_run_that_diverges_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PHASES", {"search": replace(PHASES["search"], last=2)})
    monkeypatch.setattr(contenders, "SHARED", {**contenders.SHARED, "batch_size": 2})
    wild = replace(CONTENDERS["diffusion-dpo"], settings={"cache.folder": None, "data": "scenes-pairs"})
    assert run_task(task(contender=wild, rate=1e12), tmp_path, budget=60)["failure"]


def test_more_budget_gives_more_steps_and_none_is_exceeded(tmp_path: Path) -> None:
    steps, cost = zip(*(steps_within(task(), tmp_path, budget) for budget in (100, 1000, 2000)), strict=True)
    assert steps == (1, 10, 20)
    assert cost == (96.0, 960.0, 1920.0)


def synthetic(gain: float) -> Results:
    """Diffusion-DPO and IPO, which ends with more truth and less spread by ``gain`` at the same proxy."""
    runs: dict[str, dict[str, Any]] = {}
    for name, extra in (("diffusion-dpo", 0.0), ("ipo", gain)):
        for index in range(3):
            figures = {"attribute_accuracy": 0.9, "free_spread_right": 0.8 - extra, "truth": 1.0 + extra + 0.01 * index}
            start = {"step": 0, "units": 0, "seconds": 0.0, "proxy": 12.0, **figures, "truth": 0.5}
            end = {"step": 9, "units": 90, "seconds": 3.0, "proxy": 13.0, **figures}
            for phase in ("search", "comparison"):
                run = {"rate": 0.001, "second": 100.0, "lines": [start, end]}
                runs[f"scenes {name} {phase} {index}"] = run
    return Results(trials=3, seeds=3, runs=runs)


def test_a_contender_with_more_truth_is_shown_to_have_it() -> None:
    base, ipo = rows(synthetic(0.5), "scenes")
    assert base.against == {}
    assert base.at_proxy == {}
    assert ipo.against["truth"].mean == pytest.approx(0.5)
    assert ipo.against["free_spread_right"].mean == pytest.approx(-0.5)
    assert rows(synthetic(0.5), "scenes-flow") == []
    table = cost_table([base, ipo]).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == ["before training", "ipo", "diffusion-dpo"]
    assert "ipo" in proxy_table([base, ipo])


def test_figures_are_compared_where_both_first_reach_the_same_proxy() -> None:
    fast = [{"proxy": 0.0, "truth": 0.0}, {"proxy": 4.0, "truth": 2.0}, {"proxy": 3.0, "truth": 9.0}]
    slow = [{"proxy": 0.0, "truth": 0.0}, {"proxy": 1.0, "truth": 3.0}, {"proxy": 2.0, "truth": 3.0}]
    worse = [{"proxy": 0.0, "truth": 0.0}, {"proxy": -1.0, "truth": 5.0}]
    assert difference_at_equal_proxy(fast, slow, "truth") == pytest.approx(1.0 - 3.0)
    assert difference_at_equal_proxy(slow, fast, "truth") == pytest.approx(3.0 - 1.0)
    assert difference_at_equal_proxy(worse, fast, "truth") is None


def test_equal_contenders_show_nothing() -> None:
    _, ipo = rows(synthetic(0.0), "scenes")
    assert {contrast.difference for contrast in ipo.against.values()} == {Difference.NOT_SHOWN}


def test_the_comparison_waits_for_the_search_and_a_twin_takes_its_values(tmp_path: Path) -> None:
    names = ["gamma", "control"]
    some = [CONTENDERS[name] for name in names]
    assert len(list(command.search_tasks(["scenes"], some, 2))) == 2
    assert not list(command.comparison_tasks(["scenes"], some, 2, 1, tmp_path))
    for index in range(2):
        path = tmp_path / "scenes" / "gamma" / f"search-{index}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result(proxy=float(index))), encoding="utf-8")
    see, control = command.comparison_tasks(["scenes"], some, 2, 1, tmp_path)
    assert see.rate == control.rate
    assert see.second is not None
    assert control.second == pytest.approx(1.5 * see.second)


def test_the_published_tables_follow_from_the_published_runs(tmp_path: Path) -> None:
    results = Results.read(PUBLISHED)
    worlds = {world: rows(results, world) for world in WORLDS}
    assert [row.contender.name for row in worlds["scenes"]] == list(CONTENDERS)
    for name in (RESULTS_PAGE, APPENDIX_PAGE):
        shutil.copy(DOCS / name, tmp_path / name)
    write_blocks(blocks(worlds), tmp_path)
    for name in (RESULTS_PAGE, APPENDIX_PAGE):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")


def test_a_figure_has_a_panel_for_each_world_with_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw({"scenes": rows(synthetic(0.5), "scenes"), "scenes-flow": []}, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert text.count('id="axes_') == 1
