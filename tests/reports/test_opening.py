from __future__ import annotations

from pathlib import Path

from seedpo.core.verdicts import Difference
from seedpo.reports.beginnings import WORDS, change, change_sentence
from seedpo.reports.families import group
from seedpo.reports.images import build_grid, plan_grid
from seedpo.reports.opening import Opening, opening
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


def test_before_training_then_each_setting_at_its_last_step(tmp_path: Path) -> None:
    first = first_of(trio(tmp_path, base=HACKED))
    assert first is not None
    assert [(frame.role, frame.step, frame.sheet) for frame in first.frames] == [
        ("", 0, "s0-0-0"),
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
