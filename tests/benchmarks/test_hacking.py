from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.hacking import __main__ as command
from benchmarks.hacking import analysis, contenders, page, running
from benchmarks.hacking.analysis import DIVERSITY, ENTRIES, TRUTH, chosen, entering, final_rows, pool
from benchmarks.hacking.contenders import CONTENDERS, PHASES, SECOND_OPINION, run_keys
from benchmarks.hacking.page import against_table, draw, ends_tables, runs_table
from benchmarks.hacking.results import Results, collect, unpack
from benchmarks.hacking.worlds import REWARD_SCALES, WORLDS
from benchmarks.result_tables import APPENDIX_PAGE, DOCS, RESULTS_PAGE
from seedpo.core.verdicts import Difference, Outcome
from seedpo.scenes.prompts import EVALUATION_PROMPTS
from seedpo.training.configuration import resolve_config

WORLD = next(iter(WORLDS))
PROMPTS = 12
SEEDS = 5


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of the resamples has tests of its own."""
    monkeypatch.setattr(analysis, "RESAMPLES", 30)


Shape = Callable[[float], tuple[float, float]]
"""Truth and spread by the proxy that is reached."""


def hacked(proxy: float) -> tuple[float, float]:
    """Truth rises a little, then falls by two."""
    return 1.0 + proxy - 3.0 * proxy**2, 0.8 - 0.3 * proxy


def kept(proxy: float) -> tuple[float, float]:
    """Truth falls by one less than that, and no spread is lost by it."""
    truth, spread = hacked(proxy)
    return truth + proxy, spread


def dull(proxy: float) -> tuple[float, float]:
    """More truth, bought with spread."""
    truth, spread = kept(proxy)
    return truth, spread - 0.3 * proxy


def run(
    seed: int, shape: Shape = hacked, *, top: float = 1.0, noise: float = 0.02, prompts: bool = True
) -> dict[str, Any]:
    """A run of six evaluations whose proxy rises to ``top`` in equal parts."""
    generator = np.random.default_rng([seed, int(1000 * abs(top))])
    hardness = np.random.default_rng(7).normal(size=PROMPTS)
    lines = []
    for step in range(7):
        proxy = top * step / 6
        truth, spread = shape(proxy)
        jitter = generator.normal(size=2) * noise * min(step, 1)
        values = {
            "proxy": proxy + 0.2 * hardness,
            TRUTH: truth + jitter[0] + 0.5 * hardness,
            DIVERSITY: spread + jitter[1] / 10 + 0.0 * hardness,
        }
        line = {name: float(row.mean()) for name, row in values.items()}
        by_prompt = {"by_prompt": {name: row.tolist() for name, row in values.items()}} if prompts else {}
        more = {"free_spread_right": spread, "attribute_accuracy": 0.9}
        lines.append({"step": step, **line, **more, **by_prompt})
    return {"steps": 6, "failure": "", "lines": lines}


def study(**shapes: Callable[[int], dict[str, Any]]) -> Results:
    """Runs of both phases by the name of the contender, with its first option."""
    runs = {}
    for name, make in shapes.items():
        name = name.replace("_", " ")
        option = next(iter(CONTENDERS[name].options))
        for phase, first in (("development", 100), ("final", 0)):
            for index in range(3 if first else SEEDS):
                runs[f"{WORLD}/{name}/{option}/{phase}-{index}"] = make(first + index)
    return Results(runs=runs)


def row_of(results: Results, name: str) -> Any:
    (row,) = [row for row in final_rows(results, [WORLD])[WORLD] if row.entry.name == name]
    return row


def test_a_term_that_has_more_truth_at_equal_proxy_is_above_all_controls() -> None:
    results = study(
        base=run, low_rate=lambda seed: run(seed, top=0.5), early_reset=lambda seed: run(seed, kept, top=0.9)
    )
    row = row_of(results, "early reset")
    # The term has one more than the base for each unit of proxy, of which they share 0 to 0.9.
    assert row.against["base"][TRUTH].gap.mean == pytest.approx(0.45, abs=0.03)
    assert row.against["base"][TRUTH].difference is Difference.HIGHER
    assert set(row.against) == {"base", "low rate"}
    assert row.adjusted < 0.01
    assert row.passes
    assert set(row.outcomes.values()) == {Outcome.HACKING}


def test_a_term_that_only_goes_slower_is_not() -> None:
    """Its truth falls less than the base's in as many steps, and just as much at equal proxy."""
    row = row_of(study(base=run, early_reset=lambda seed: run(seed, top=0.5)), "early reset")
    assert row.end[TRUTH] > -0.9 + 1.5
    assert row.against["base"][TRUTH].difference is Difference.NOT_SHOWN
    assert abs(row.against["base"][TRUTH].gap.mean) < 0.03
    assert not row.passes


def test_a_term_that_wins_in_one_seed_is_not() -> None:
    row = row_of(
        study(base=run, early_reset=lambda seed: run(seed, kept if seed == 0 else hacked, top=0.9)), "early reset"
    )
    assert row.against["base"][TRUTH].gap.mean > 0.05
    assert row.adjusted > 0.1
    assert not row.passes


def test_a_term_that_pays_with_spread_is_not() -> None:
    row = row_of(study(base=run, early_reset=lambda seed: run(seed, dull, top=0.9)), "early reset")
    assert row.against["base"][TRUTH].difference is Difference.HIGHER
    assert row.against["base"][DIVERSITY].difference is Difference.LOWER
    assert row.p > 0.5
    assert not row.passes


def test_one_control_that_does_as_well_is_enough_to_fail() -> None:
    row = row_of(
        study(base=run, anchor=lambda seed: run(seed + 50, kept), early_reset=lambda seed: run(seed, kept)),
        "early reset",
    )
    assert row.against["base"][TRUTH].difference is Difference.HIGHER
    assert row.nearest == "anchor"
    assert not row.passes


@pytest.mark.parametrize(("shape", "passes"), [(hacked, True), (lambda proxy: (1.0 + 4 * proxy, 0.8), False)])
def test_a_control_that_reaches_little_must_not_have_more_there(shape: Shape, passes: bool) -> None:
    """Best of n is soon at its end: nothing can be above it by much where truth has hardly moved."""
    results = study(base=run, anchor=lambda seed: run(seed, shape, top=0.2), early_reset=lambda seed: run(seed, kept))
    row = row_of(results, "early reset")
    assert row.against["anchor"][TRUTH].covered == pytest.approx(0.2, abs=0.01)
    assert row.against["base"][TRUTH].covered == pytest.approx(1.0)
    assert row.passes is passes


def test_a_control_that_never_climbs_is_no_control() -> None:
    results = study(base=run, anchor=lambda seed: run(seed, top=-0.2), early_reset=lambda seed: run(seed, kept))
    assert set(row_of(results, "early reset").against) == {"base"}


def test_who_asks_a_second_opinion_is_held_against_its_sum() -> None:
    results = study(base=run, sum=run, drop=run, novelty=run)
    assert set(row_of(results, "drop").against) == {"base", "sum"}
    assert set(row_of(results, "novelty").against) == {"base"}
    assert set(row_of(results, "sum").against) == {"base"}
    assert [name for name, contender in CONTENDERS.items() if contender.asks_opinion] == [
        "sum",
        "gardo",
        "drop",
        "opinion",
        "agreement",
    ]


def test_a_sum_weighs_both_in_their_deviations() -> None:
    world = WORLDS[WORLD]
    keys = run_keys(world, CONTENDERS["sum"], CONTENDERS["sum"].options["half"], phase="final", index=0)
    terms = keys["rewards"][keys["reward"]]["terms"]
    assert {name: (term["weight"], term["std"]) for name, term in terms.items()} == {
        world.proxy: (1.0, REWARD_SCALES[world.model][world.proxy][1]),
        SECOND_OPINION: (0.5, REWARD_SCALES[world.model][SECOND_OPINION][1]),
    }


def test_more_tries_need_more_evidence() -> None:
    weak = {"base": run, "early_reset": lambda seed: run(seed, kept, top=0.9, noise=0.5)}
    alone = row_of(study(**weak), "early reset")
    others = {"gamma": run, "early_anchor": run}
    among = row_of(study(**weak, **others), "early reset")
    assert alone.adjusted == alone.p == among.p
    assert among.adjusted == pytest.approx(min(1.0, 3 * alone.p))


def test_hardly_any_term_without_effect_is_above_the_controls() -> None:
    """With as much noise as there is in runs, of 60 terms that change nothing."""
    hits = 0
    for trial in range(60):
        results = study(
            base=lambda seed, t=1000 * trial: run(seed + t, noise=0.15, prompts=False),  # type: ignore[misc]
            early_reset=lambda seed, t=1000 * trial + 500: run(seed + t, noise=0.15, top=0.8, prompts=False),  # type: ignore[misc]
        )
        hits += row_of(results, "early reset").passes
    assert hits <= 6  # 3 are expected at 5 %; more than 6 have a probability of 3 %


def test_the_setting_with_the_most_truth_at_equal_proxy_is_chosen() -> None:
    entry = ENTRIES[0]
    assert entry.name == "base"
    makes: dict[str, Callable[[int], dict[str, Any]]] = {
        "beta-1": run,
        "beta-4": lambda seed: run(seed, kept, top=0.7),
        "beta-16": lambda seed: run(seed, kept, top=0.2),
    }
    runs = {
        f"{WORLD}/base/{option}/development-{index}": make(100 + index)
        for option, make in makes.items()
        for index in range(3)
    }
    choice = chosen(Results(runs=runs), WORLD, entry)
    assert choice is not None
    assert choice.option == "beta-4"
    assert choice.tried["beta-1"] == 0
    assert choice.tried["beta-4"] > choice.tried["beta-16"] > 0
    assert chosen(Results(runs={}), WORLD, entry) is None


def test_all_controls_and_the_best_two_of_each_other_role_enter() -> None:
    reached = {"gamma": 0.3, "early anchor": 0.5, "linear-dpo": 0.4}
    rivals = {name: lambda seed, top=top: run(seed, kept, top=top) for name, top in reached.items()}
    results = study(base=run, anchor=run, **rivals, **{"early reset": run})
    names = [entry.name for entry in entering(results, WORLD)]
    assert names == ["base", "anchor", "early anchor", "linear-dpo", "early reset"]


def test_sampling_makes_paths_of_a_run_from_the_model_before_training() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 0, "proxy": 0.0, TRUTH: 1.0},
        {"step": 3, "proxy": 1.0, TRUTH: 0.5},
        {"step": 3, "proxy": 0.4, TRUTH: 0.9, "control": "strength", "value": 0.5},
        {"step": 6, "proxy": 2.0, TRUTH: -1.0},
        {"step": 6, "proxy": 0.8, TRUTH: 0.7, "control": "strength", "value": 0.5},
        {"step": 6, "proxy": 0.1, TRUTH: 1.1, "control": "best of n", "value": 2},
        {"step": 6, "proxy": 0.2, TRUTH: 1.2, "control": "best of n", "value": 4},
    ]
    runs = {3: {"lines": lines}}
    assert [trail.proxy.tolist() for trail in pool(runs, TRUTH)[3]] == [[0.0, 1.0, 2.0]]
    strengths = pool(runs, TRUTH, "strength")[3]
    assert [trail.proxy.tolist() for trail in strengths] == [[0.0, 0.4, 1.0], [0.0, 0.8, 2.0]]
    assert [trail.value.tolist() for trail in pool(runs, TRUTH, "best of n")[3]] == [[1.0, 1.1, 1.2]]
    assert pool(runs, TRUTH, "mixing") == {}
    assert pool(runs, DIVERSITY) == {}


def test_the_final_comparison_sees_no_prompt_latent_or_seed_of_the_development() -> None:
    development, final = PHASES["development"], PHASES["final"]
    assert not set(development.prompts) & set(final.prompts)
    assert {*development.prompts, *final.prompts} <= set(EVALUATION_PROMPTS)
    assert development.seed != final.seed
    assert development.first_seed >= final.first_seed + 50


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CONTENDERS)
def test_every_option_of_every_contender_can_be_trained(name: str, world: str) -> None:
    contender = CONTENDERS[name]
    for option in contender.options.values() if contender.fits(WORLDS[world]) else ():
        keys = run_keys(WORLDS[world], contender, option, phase="final", index=3)
        config = resolve_config(keys["method"], keys)
        assert (config.model, config.seed) == (WORLDS[world].model, 3)
        assert config.max_steps == round(WORLDS[world].steps * option.length)


def test_a_run_of_the_base_holds_its_figures_by_prompt_and_what_sampling_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"groups.images_per_prompt": 2, "groups.prompts_per_rollout": 2, "batch_size": 2, "groups.min_gap": 0.0}
    world = replace(WORLDS["scenes-online-vividness"], steps=2, settings=few)
    monkeypatch.setattr(running, "WORLDS", {"small": world})
    monkeypatch.setattr(running, "PHASES", {"development": replace(PHASES["development"], last=2)})
    monkeypatch.setattr(contenders, "EVALUATIONS", 2)
    task = running.Task(world="small", contender="base", option="beta-1", phase="development", index=0)
    first = running.run_task(task, tmp_path)
    trained = [line for line in first["lines"] if "control" not in line]
    assert [(line["step"], line["units"] > 0) for line in trained] == [(0, False), (1, True), (2, True)]
    assert all(len(line["by_prompt"]["proxy"]) == 2 for line in first["lines"])
    assert trained[0]["proxy"] == pytest.approx(sum(trained[0]["by_prompt"]["proxy"]) / 2, rel=1e-3)
    drawn = [(line["step"], line["control"], line["value"]) for line in first["lines"] if "control" in line]
    sampled = [(kind, value) for kind, controls in running.SAMPLINGS.items() for value in controls]
    assert drawn == [
        *((step, kind, value) for step in (1, 2) for kind, value in sampled),
        *((2, "best of n", value) for value in running.BEST_OF),
    ]
    best = [line["proxy"] for line in first["lines"] if line.get("control") == "best of n"]
    assert trained[0]["proxy"] < best[0] < best[1]
    monkeypatch.setattr(running, "train_here", None)
    assert running.run_task(task, tmp_path) == json.loads(json.dumps(first))


def names(tasks: Sequence[Any]) -> list[tuple[str, str, int]]:
    return [(task.contender, task.option, task.index) for task in tasks]


def test_the_final_comparison_trains_what_was_chosen(tmp_path: Path) -> None:
    some = [CONTENDERS[name] for name in ("base", "early reset")]
    tried = list(command.development_tasks([WORLD], some, 2))
    assert len(tried) == 2 * sum(len(contender.options) for contender in some)
    assert not list(command.final_tasks([WORLD], some, 1, Results(runs={})))
    results = study(base=run, early_reset=lambda seed: run(seed, kept), gamma=run)
    assert names(list(command.final_tasks([WORLD], some, 2, results))) == [
        ("base", "beta-1", 0),
        ("early reset", "kl-10.0", 0),
        ("base", "beta-1", 1),
        ("early reset", "kl-10.0", 1),
    ]


def test_the_base_method_runs_as_it_stands_on_the_final_seeds_too() -> None:
    def by_beta(option: str, shape: Shape) -> dict[str, Any]:
        return {f"{WORLD}/base/{option}/development-{index}": run(100 + index, shape) for index in range(3)}

    results = Results(runs={**by_beta("beta-1", hacked), **by_beta("beta-4", kept)})
    tasks = list(command.final_tasks([WORLD], [CONTENDERS["base"]], 1, results))
    assert names(tasks) == [("base", "beta-4", 0), ("base", "beta-1", 0)]


def test_all_runs_become_one_file_and_files_again(tmp_path: Path) -> None:
    results = study(base=run, early_reset=lambda seed: run(seed, kept))
    unpack(results, tmp_path / "all")
    again = Results.read(collect(tmp_path / "all", [f"{name}.json" for name in results.runs], tmp_path / "all.json"))
    assert again.runs.keys() == results.runs.keys()
    for name, some in again.runs.items():
        if "final" in name:
            assert some == results.runs[name]
        elif "/base/" in name:
            assert all(line["by_prompt"].keys() == {"proxy", TRUTH} for line in some["lines"])
            assert analysis.outcome(some) is analysis.outcome(results.runs[name]) is Outcome.HACKING
        else:
            assert all("by_prompt" not in line for line in some["lines"])


def test_finished_runs_are_not_overwritten_by_published_ones(tmp_path: Path) -> None:
    results = study(base=run)
    first = tmp_path / f"{next(iter(results.runs))}.json"
    first.parent.mkdir(parents=True)
    first.write_text("{}", "utf-8")
    unpack(results, tmp_path)
    assert first.read_text("utf-8") == "{}"
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(results.runs)


def test_tables_and_figure_hold_every_row(tmp_path: Path) -> None:
    results = study(base=run, anchor=run, early_reset=lambda seed: run(seed, kept))
    rows = final_rows(results, [WORLD])[WORLD]
    assert [line.split(" | ")[0].strip("| ") for line in runs_table(rows).splitlines()[2:]] == [
        "before training",
        "base",
        "anchor",
        "early reset",
    ]
    assert len(against_table({WORLD: rows}).splitlines()) == 3
    assert WORLD in ends_tables({WORLD: rows})
    assert ends_tables({WORLD: []}) == ""
    pytest.importorskip("matplotlib")
    draw(results, "final", tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text(encoding="utf-8").count('id="axes_') == 1


def test_the_published_tables_follow_from_the_published_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(analysis, "RESAMPLES", 300)
    (tmp_path / "images").mkdir()
    for name in (RESULTS_PAGE, APPENDIX_PAGE):
        shutil.copy(DOCS / name, tmp_path / name)
    assert page.main(["--docs", str(tmp_path)]) == 0
    for name in (RESULTS_PAGE, APPENDIX_PAGE):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")


def test_numbers_of_a_gap_stay_finite_where_nothing_is_shared() -> None:
    row = row_of(study(base=run, early_reset=lambda seed: run(seed, top=-0.1)), "early reset")
    assert row.against["base"][TRUTH].difference is Difference.NOT_COMPARABLE
    assert math.isnan(row.against["base"][TRUTH].gap.mean)
    assert (row.p, row.passes) == (1.0, False)


def test_the_tables_of_both_pages_and_the_figure_follow_from_the_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = study(base=run, low_rate=lambda seed: run(seed, top=0.5), early_reset=lambda seed: run(seed, kept))
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"runs": results.runs}), "utf-8")
    (tmp_path / "images").mkdir()
    marks = {RESULTS_PAGE: ("worlds", "hacking"), APPENDIX_PAGE: ("hacking", "gains")}
    for name, texts in marks.items():
        blocks = (f"<!-- {text}: begin -->\nold\n<!-- {text}: end -->\n" for text in texts)
        (tmp_path / name).write_text("# Title\n" + "".join(blocks) + "after\n", "utf-8")
    assert page.main(["--results", str(file), "--docs", str(tmp_path)]) == 0
    written = {name: (tmp_path / name).read_text("utf-8") for name in marks}
    for text in written.values():
        assert "old" not in text
        assert text.startswith("# Title\n")
        assert text.endswith("after\n")
    (row,) = [line for line in written[RESULTS_PAGE].splitlines() if "early reset" in line]
    assert row.endswith("| yes |")
    (world,) = [line for line in written[RESULTS_PAGE].splitlines() if line.endswith("| 8 | 8, 0, 0, 0 |")]
    assert world.startswith(f"| `{WORLD}` | 10 | ")
    assert "| 0.800, 0.500 |" in world
    assert written[APPENDIX_PAGE].count("| 5 of 5 |") == 3
    assert f"| `{WORLD}` | early reset | own | kl-10.0 0." in written[APPENDIX_PAGE]
    assert (tmp_path / "images" / "hacking.svg").read_text("utf-8").count("<svg") == 1
    (tmp_path / RESULTS_PAGE).write_text("no marks", "utf-8")
    with pytest.raises(ValueError, match="worlds: begin"):
        page.main(["--results", str(file), "--docs", str(tmp_path)])
