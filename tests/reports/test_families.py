from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedpo.reports.families import Family, group
from seedpo.reports.findings import different_evaluations, findings
from seedpo.reports.runs import read_runs
from tests.reports.synthetic import write_run


def families(tmp_path: Path, *changes: dict[str, Any]) -> tuple[Family, ...]:
    return group(
        read_runs(
            [
                write_run(tmp_path / f"run{index}", **({"samples": False, "evaluations": (0, 10, 20)} | change))
                for index, change in enumerate(changes)
            ]
        )
    )


def test_base_see_and_control_find_each_other(tmp_path: Path) -> None:
    (family,) = families(tmp_path, {"beta": 1000.0}, {"beta": 250.0, "gamma": 3.0}, {"beta": 250.0})
    assert [(one.role, one.name) for one in family.settings] == [
        ("base", "base β = 250"),
        ("see", "SEE γ = 3"),
        ("control", "control β′ = 1000"),
    ]
    base, see, control = family.settings
    assert family.base_of(see) is base
    assert family.control_of(see) is control
    assert see.policy_weight == 1000
    assert family.title == "Diffusion-DPO"


def test_a_plain_run_that_is_the_base_of_one_and_the_control_of_another_is_a_base(tmp_path: Path) -> None:
    (family,) = families(
        tmp_path, {"beta": 1.0}, {"beta": 1.0, "gamma": 1.0}, {"beta": 2.0}, {"beta": 2.0, "gamma": 1.0}
    )
    assert [one.role for one in family.settings] == ["base", "base", "see", "see"]
    assert [one.order for one in family.settings] == [0, 1, 0, 1], "settings of a role get different dashes"
    first = family.settings[2]
    assert first.name == "SEE γ = 1, β = 1"
    control = family.control_of(first)
    assert control is not None
    assert control.beta == 2.0


def test_seeds_are_one_setting_with_mean_and_range(tmp_path: Path) -> None:
    (family,) = families(tmp_path, {"seed": 0}, {"seed": 7}, {"seed": 3})
    (setting,) = family.settings
    assert setting.seeds == (0, 7, 3)
    values = [curves["truth"][20].value for curves in setting.by_seed]
    point = setting.curves["truth"][20]
    assert point.value == pytest.approx(sum(values) / 3)
    assert (point.low, point.high) == (min(values), max(values))


def test_a_mean_ends_where_the_shortest_seed_ends(tmp_path: Path) -> None:
    (family,) = families(tmp_path, {"seed": 0}, {"seed": 1, "evaluations": (0, 10)}, {"seed": 2, "evaluations": ()})
    (setting,) = family.settings
    assert setting.curves["truth"].steps == (0, 10)
    assert setting.several_seeds


def test_a_single_seed_keeps_its_own_intervals(tmp_path: Path) -> None:
    (family,) = families(tmp_path, {"half_width": 0.25})
    point = family.settings[0].curves["truth"][10]
    assert point.high - point.low == pytest.approx(0.5)


def test_another_model_names_a_family_by_itself(tmp_path: Path) -> None:
    other = {"changes": {"model": "scenes-flow", "learning_rate": 3e-5, "max_sequence_length": 1}}
    found = families(tmp_path, {}, other)
    assert [one.title for one in found] == ["Diffusion-DPO (model scenes)", "Diffusion-DPO (model scenes-flow)"]


def test_another_learning_rate_or_proxy_makes_another_family(tmp_path: Path) -> None:
    other = {"num_prompts": 6, "images_per_prompt": 4, "rewards": ["aesthetic"], "seed": 1234}
    found = families(tmp_path, {}, {"changes": {"learning_rate": 3e-5}}, {"changes": {"evaluation": other}})
    assert [family.title for family in found] == [
        'Diffusion-DPO (learning_rate 0.0001 and evaluation.rewards ["scenes-scorer"])',
        'Diffusion-DPO (learning_rate 3e-05 and evaluation.rewards ["scenes-scorer"])',
        'Diffusion-DPO (learning_rate 0.0001 and evaluation.rewards ["aesthetic"])',
    ]
    assert found[2].proxy == "reward/aesthetic"


def test_other_lengths_and_prompts_are_compared_but_admitted(tmp_path: Path) -> None:
    other = {"num_prompts": 2, "images_per_prompt": 4, "rewards": ["scenes-scorer"], "seed": 1234}
    (family,) = families(tmp_path, {}, {"gamma": 1.0, "changes": {"max_steps": 50, "evaluation": other}})
    assert len(family.settings) == 2
    assert different_evaluations(family) == ["evaluation.num_prompts"]


def test_a_held_out_reward_judges_where_no_truth_is_known(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=False, evaluations=())
    rewards = "[pickscore, aesthetic]"
    config = (run / "config.yaml").read_text().replace("rewards:\n  - scenes-scorer", f"rewards: {rewards}")
    (run / "config.yaml").write_text(config)
    line = '{"step": 0, "kind": "evaluation", "reward/pickscore": 20.5, "reward/aesthetic": 5.3}\n'
    (run / "metrics.jsonl").write_text(line)
    (family,) = group(read_runs([run]))
    assert (family.proxy, family.judge, family.judge_name) == (
        "reward/pickscore",
        "reward/aesthetic",
        "held-out reward aesthetic",
    )


def test_keys_that_change_no_result_part_no_family(tmp_path: Path) -> None:
    bookkeeping = {
        "trackers": ["tensorboard"],
        "tracker_project": "mine",
        "alarms": {"window": 30, "hacking": {"action": "keep_best"}},
        "cache": {"folder": "/x", "latents": False},
        "feedback": {"poll_seconds": 9.0},
        "log_every": 5,
        "checkpoint_every": 7,
        "checkpoints_limit": 1,
    }
    (family,) = families(tmp_path, {}, {"gamma": 3.0}, {"seed": 1, "changes": bookkeeping})
    assert [(one.role, one.seeds) for one in family.settings] == [("base", (0, 1)), ("see", (0,))]
    other = families(tmp_path / "other", {}, {"gamma": 3.0, "changes": {"cache": {"reference": True}}})
    assert len(other) == 2


def test_folders_with_one_configuration_hold_one_run(tmp_path: Path) -> None:
    (family,) = families(
        tmp_path, {"finished": False, "evaluations": (0, 10)}, {}, {"seed": 1}, {"changes": {"log_every": 5}}
    )
    (setting,) = family.settings
    assert setting.seeds == (0, 1), "one seed is no two seeds"
    assert [run.name for run in setting.runs] == ["run1", "run2"], "the finished one counts"
    assert [(twin.name, run.name) for twin, run in family.twins] == [("run0", "run1"), ("run3", "run1")]
    notes = findings(family).notes
    assert sum("holds the same run" in note for note in notes) == 2


def test_equal_seeds_are_not_certain(tmp_path: Path) -> None:
    """Before training all seeds draw the same images: their range has no width."""
    (family,) = families(tmp_path, {"seed": 0, "half_width": 0.25}, {"seed": 1, "half_width": 0.25})
    start = family.settings[0].curves["truth"][0]
    assert start.high - start.low == pytest.approx(0.5)
    (bare,) = families(tmp_path / "bare", {"seed": 0, "half_width": 0.0}, {"seed": 1, "half_width": 0.0})
    assert not bare.settings[0].curves["truth"][0].has_interval


def test_a_key_that_came_later_has_its_default(tmp_path: Path) -> None:
    """Runs of two versions of the program are alike where the newer key has its default."""
    first = write_run(tmp_path / "old", samples=False, evaluations=(0, 10))
    second = write_run(tmp_path / "new", samples=False, evaluations=(0, 10), seed=1, changes={"loss": "sigmoid"})
    (family,) = group(read_runs([first, second]))
    assert family.settings[0].seeds == (0, 1)
    other = write_run(tmp_path / "ipo", samples=False, evaluations=(0, 10), changes={"loss": "ipo"})
    assert len(group(read_runs([first, other]))) == 2


def test_terms_are_compared_with_the_base_method_at_their_beta(tmp_path: Path) -> None:
    terms = {
        "agreement": {"weighting": {"second_opinion": ["scenes-scorer"], "agreement": True}},
        "anchor": {"anchor": {"kl": 5.0}},
        "anchor-see": {"anchor": {"kl": 5.0}},
    }
    folders = [
        write_run(tmp_path / name, method="spo", beta=10.0, gamma=3.0 * name.endswith("see"), changes=changes)
        for name, changes in {**terms, "base": {}, "see": {}}.items()
    ]
    (family,) = group(read_runs(folders))
    base, see, *others = family.settings
    assert [setting.role for setting in family.settings] == ["base", "see", "term", "term", "term"]
    assert [other.name for other in others] == [
        "second opinion scenes-scorer, agreement",
        "kl 5.0",
        "SEE \N{GREEK SMALL LETTER GAMMA} = 3, kl 5.0",
    ]
    for term in others:
        assert family.base_of(term) is base
    pairs = {(effect.left.name, effect.right.name) for effect in findings(family).effects}
    assert {(other.name, base.name) for other in others} < pairs
    assert (see.name, base.name) in pairs


def test_a_term_that_all_runs_have_sets_none_apart(tmp_path: Path) -> None:
    anchor = {"anchor": {"kl": 5.0}}
    folders = [
        write_run(tmp_path / name, method="spo", beta=10.0, gamma=gamma, changes=anchor)
        for name, gamma in (("base", 0.0), ("see", 3.0))
    ]
    (family,) = group(read_runs(folders))
    assert [setting.role for setting in family.settings] == ["base", "see"]
