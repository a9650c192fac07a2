from __future__ import annotations

import json
from pathlib import Path

from seedpo.core.verdicts import Difference
from seedpo.reports.beginnings import WORDS, change, change_sentence
from seedpo.reports.families import group
from seedpo.reports.images import build_grid, plan_grid
from seedpo.reports.opening import Opening, opening, stopping_step
from seedpo.reports.runs import read_runs
from tests.reports.synthetic import Fate, write_run

HACKED, KEPT = Fate(), Fate(hack=0.0)
STEPS = (0, 50, 100)


def first_of(folders: list[Path]) -> Opening | None:
    families = group(read_runs(folders))
    plans = [plan_grid(family) for family in families]
    return opening(
        (family, build_grid(plan, most_rows=8, prefix=f"s{index}")[0])
        for index, (family, plan) in enumerate(zip(families, plans, strict=True))
    )


def trio(root: Path, *, base: Fate, seeds: tuple[int, ...] = (0,), method: str = "spo") -> list[Path]:
    settings = {"base": (10.0, 0.0, base), "see": (10.0, 3.0, Fate(hack=0.2)), "control": (40.0, 0.0, KEPT)}
    return [
        write_run(
            root / f"{method}-{name}-{seed}",
            method=method,
            beta=beta,
            gamma=gamma,
            fate=fate,
            seed=seed,
            evaluations=STEPS,
            tile=8,
        )
        for name, (beta, gamma, fate) in settings.items()
        for seed in seeds
    ]


def test_before_training_the_early_stop_then_each_setting_at_its_last_step(tmp_path: Path) -> None:
    first = first_of(trio(tmp_path, base=HACKED))
    assert first is not None
    assert [(frame.role, frame.step, frame.sheet) for frame in first.frames] == [
        ("", 0, "s0-0-0"),
        ("base", 50, "s0-0-50"),
        ("base", 100, "s0-0-100"),
        ("see", 100, "s0-1-100"),
        ("control", 100, "s0-2-100"),
    ]
    assert (first.rows, first.columns) == (6, 4)


def test_the_sentence_has_the_numbers_of_the_verdict(tmp_path: Path) -> None:
    first = first_of(trio(tmp_path, base=HACKED))
    assert first is not None
    (verdict,) = first.family.settings[0].verdicts
    for value in (verdict.judge_peak, verdict.judge_last, verdict.proxy_peak, verdict.proxy_last):
        assert f"{value:.3f}".replace("-", "\N{MINUS SIGN}") in first.sentence
    assert f"from step {verdict.peak_step} to 100" in first.sentence
    peak = f"{verdict.judge_peak:.3f}".replace("-", "\N{MINUS SIGN}")
    assert first.sentence.endswith(f"Stopped at step 50, it has {peak}.")


def test_a_user_stops_where_a_held_out_reward_is_highest_and_not_the_truth(tmp_path: Path) -> None:
    """Truth is highest at step 20 here, and a second reward at step 80."""
    rewards = {"evaluation": {"rewards": ["scenes-scorer", "scenes-clip"], "metrics": ["truth"]}}
    steps = tuple(range(0, 101, 20))
    folder = write_run(tmp_path / "base", method="spo", fate=HACKED, evaluations=steps, changes=rewards, tile=8)
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        if line["kind"] == "evaluation":
            line["reward/scenes-clip"] = 1.0 - abs(line["step"] - 80) / 100
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    (run,) = read_runs([folder])
    assert stopping_step(run) == 80
    first = first_of([folder])
    assert first is not None
    assert [frame.step for frame in first.frames] == [0, 80, 100]
    assert "Stopped at step 80, where reward scenes-clip is highest" in first.sentence


def test_no_stop_where_the_end_is_highest(tmp_path: Path) -> None:
    rewards = {"evaluation": {"rewards": ["scenes-scorer"], "metrics": ["truth"]}}
    folder = write_run(tmp_path / "run", method="spo", fate=KEPT, evaluations=STEPS, changes=rewards, tile=8)
    (run,) = read_runs([folder])
    assert stopping_step(run) == 100
    bare = write_run(tmp_path / "bare", evaluations=())
    assert stopping_step(read_runs([bare])[0]) is None


def test_a_term_stands_last(tmp_path: Path) -> None:
    term = {"weighting": {"second_opinion": ["scenes-scorer"], "agreement": True}}
    folders = trio(tmp_path, base=HACKED)
    folders.insert(0, write_run(tmp_path / "term", method="spo", beta=10.0, evaluations=STEPS, changes=term, tile=8))
    first = first_of(folders)
    assert first is not None
    assert [frame.role for frame in first.frames] == ["", "base", "base", "see", "control", "term"]
    assert "second opinion scenes-scorer, agreement ends at" in first.sentence


def test_the_seeds_that_hack_are_counted(tmp_path: Path) -> None:
    folders = trio(tmp_path, base=HACKED, seeds=(0, 1))
    folders.append(write_run(tmp_path / "kept", method="spo", beta=10.0, fate=KEPT, seed=2, evaluations=STEPS, tile=8))
    first = first_of(folders)
    assert first is not None
    assert "(2 of 3 seeds)" in first.sentence


def test_the_first_family_with_a_hacked_base(tmp_path: Path) -> None:
    folders = [*trio(tmp_path, base=KEPT, method="d3po"), *trio(tmp_path, base=HACKED)]
    first = first_of(folders)
    assert first is not None
    assert first.family.method == "spo"


def test_one_own_run_opens_with_its_start_and_end(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "my-lora", method="spo", beta=10.0, fate=KEPT, evaluations=STEPS, tile=8)
    first = first_of([folder])
    assert first is not None
    assert [(frame.name, frame.step) for frame in first.frames] == [("before training", 0), ("my-lora", 100)]
    assert first.sentence.startswith(WORDS[Difference.HIGHER])
    assert "0.239" in first.sentence
    assert len(first.sentence.split()) <= 30


def test_without_figures_it_says_what_to_measure(tmp_path: Path) -> None:
    family = group(read_runs([write_run(tmp_path / "run", evaluations=())]))[0]
    assert change(family, family.settings[0]) is None
    assert "evaluation.rewards" in change_sentence(family, family.settings[0])


def test_nothing_where_there_are_no_images(tmp_path: Path) -> None:
    bare = write_run(tmp_path / "bare", method="spo", beta=10.0, fate=HACKED, evaluations=STEPS, samples=False)
    assert first_of([bare]) is None
