from __future__ import annotations

from pathlib import Path

import pytest

from seedpo.errors import ConfigError
from seedpo.training.sweeps.definition import Cell, Sweep, check_name, name_of, read_sweep, read_vary
from seedpo.training.sweeps.expansion import expand, shard_of


def written(folder: Path, text: str) -> str:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return str(path)


def names(sweep: Sweep) -> list[str]:
    return [cell.name for cell in expand(sweep)]


def by_name(sweep: Sweep) -> dict[str, Cell]:
    return {cell.name: cell for cell in expand(sweep)}


class TestCells:
    def test_every_combination_of_the_grid(self, tmp_path: Path) -> None:
        text = "base: {method: spo, max_steps: 7}\ngrid: {gamma: [0, 1.5], steps.candidates: [2, 1e1], seed: [0, 3]}"
        found = by_name(read_sweep(written(tmp_path, text)))
        assert list(found) == [
            f"gamma={gamma}_candidates={candidates}_seed={seed}"
            for gamma in ("0", "1.5")
            for candidates in ("2", "10")
            for seed in (0, 3)
        ]
        config = found["gamma=1.5_candidates=10_seed=3"].config
        assert config is not None
        assert (config.gamma, config.steps.candidates, config.seed, config.max_steps) == (1.5, 10, 3, 7)
        assert found["gamma=1.5_candidates=10_seed=3"].steps == 7

    def test_named_cells_are_crossed_with_seeds(self, tmp_path: Path) -> None:
        text = "base: spo\ncells: {plain: {}, hot: {beta: 40, sampling.eta: 0.5}}\nseeds: 2"
        found = by_name(read_sweep(written(tmp_path, text)))
        assert list(found) == ["plain_seed=0", "plain_seed=1", "hot_seed=0", "hot_seed=1"]
        config = found["hot_seed=1"].config
        assert config is not None
        assert (config.beta, config.sampling.eta, config.seed) == (40, 0.5, 1)

    def test_a_base_recipe_lies_beside_the_sweep_and_set_wins(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("method: d3po\nbeta: 3\nmax_steps: 9\n")
        text = written(tmp_path, "base: base.yaml\ngrid: {gamma: [1]}")
        (only,) = expand(read_sweep(text, changes={"beta": 5.0}))
        assert only.config is not None
        assert (only.config.method, only.config.beta, only.config.max_steps) == ("d3po", 5.0, 9)

    def test_a_method_or_a_recipe_and_vary(self, tmp_path: Path) -> None:
        assert names(read_sweep("spo", vary=["gamma=0,1", "seed=4"])) == ["gamma=0_seed=4", "gamma=1_seed=4"]
        recipe = written(tmp_path, "method: spo\nbeta: 2")
        assert names(read_sweep(recipe, vary=["beta=1e-3,2"])) == ["beta=0.001", "beta=2"]

    def test_methods_can_be_varied(self) -> None:
        found = by_name(read_sweep("spo", vary=["method=spo,d3po"]))
        assert [one.config.method for one in found.values() if one.config] == ["spo", "d3po"]

    @pytest.mark.parametrize(("convention", "weight"), [("relative", 20.0), ("absolute", 11.0)])
    def test_controls_stand_at_the_temperature_of_the_entropy_term(self, convention: str, weight: float) -> None:
        changes = {"beta": 10.0, "entropy_convention": convention}
        found = by_name(read_sweep("spo", vary=["gamma=0,1"], changes=changes, controls=True))
        assert list(found) == ["gamma=0", "gamma=1", f"gamma=0_beta={weight:g}"]
        control = found[f"gamma=0_beta={weight:g}"].config
        assert control is not None
        assert (control.gamma, control.beta) == (0, weight)

    def test_a_control_that_is_in_the_grid_is_not_trained_twice(self) -> None:
        vary = ["gamma=0,1,3", "beta=10,20,40"]
        found = names(read_sweep("spo", vary=vary, controls=True))
        assert found[9:] == ["gamma=0_beta=80", "gamma=0_beta=160"]

    def test_controls_of_named_cells(self, tmp_path: Path) -> None:
        text = "base: spo\ncells: {see: {gamma: 1}, base: {gamma: 0}}\nseeds: [5]\ncontrols: true"
        assert names(read_sweep(written(tmp_path, text))) == ["see_seed=5", "base_seed=5", "see-control_seed=5"]

    def test_what_comes_to_the_same_run_is_trained_once(self) -> None:
        """At beta 10, gamma 1 relative is gamma 10 absolute, and without gamma the convention means nothing."""
        vary = ["gamma=0,1,10", "entropy_convention=relative,absolute"]
        found = names(read_sweep("spo", vary=vary, changes={"beta": 10.0}))
        assert found == [
            "gamma=0_entropy_convention=relative",
            "gamma=1_entropy_convention=relative",
            "gamma=1_entropy_convention=absolute",
            "gamma=10_entropy_convention=relative",
        ]

    def test_an_impossible_value_is_kept_with_its_reason(self) -> None:
        found = by_name(read_sweep("spo", vary=["gamma=0,-2"]))
        assert found["gamma=0"].config is not None
        assert found["gamma=-2"].config is None
        assert "raise gamma above -1" in found["gamma=-2"].refusal


class TestRefusals:
    def test_of_files(self, tmp_path: Path) -> None:
        cases = [
            ("grid: {gamma: [0]}", "base"),
            ("base: spo\ngird: {gamma: [0]}\nseeds: 1", "unknown key 'gird'; did you mean 'grid'?"),
            ("base: spo\ngrid: {}\nseeds: []", "seeds = []"),
            ("base: spo\ngrid: {}", "nothing is varied"),
            ("base: spo\ngrid: {gamma: []}", "grid = "),
            ("base: spo\ngrid: {gamma: 1}", "grid.gamma = 1"),
            ("base: spo\ngrid: {gamma: [1, 0, 1.0]}", "gamma holds 1.0 twice"),
            ("base: spo\ngrid: [gamma]", "grid = ['gamma']"),
            ("base: spo\ngrid: {gama: [1]}", "cell gama=1: unknown key 'gama'; did you mean 'gamma'?"),
            ("base: spo\ncells: {a: {gamma: 1}, b: {betta: 1}}", "cell b: unknown key 'betta'; did you mean 'beta'?"),
            ("base: spo\ncells: {a: 3}", "cells.a = 3"),
            ("base: spo\ncells: {a b/c: {gamma: 1}}", "a cell is a folder"),
            ("base: spo\ncells: {a: {seed: 0}, a_seed=0: {gamma: 3}}", "two cells are called a_seed=0"),
            ("base: spo\ngrid: {seed: [0]}\nseeds: 2", "seeds are given twice"),
            ("base: spo\nseeds: [0, 0]", "seeds = [0, 0]"),
            ("base: spo\nseeds: true", "seeds = True"),
            ("base: spo\nseeds: 2\ncontrols: maybe", "controls = 'maybe'"),
            ("base: {gamma: 1}\nseeds: 2", "no method is named"),
            ("base: sp\nseeds: 2", "unknown method or recipe 'sp'; did you mean 'spo'?"),
            ("base: spo\ngrid: {beta: [-1, 0]}", "no cell can be run; beta=-1: beta = -1"),
            ("base: [spo", "cannot be read as YAML"),
            ("- spo", "must hold keys and values"),
        ]
        for text, reason in cases:
            with pytest.raises(ConfigError) as refusal:
                expand(read_sweep(written(tmp_path, text)))
            assert reason in str(refusal.value)
            assert "sweep.yaml" in str(refusal.value)

    def test_of_vary(self) -> None:
        for text in ("gamma", "gamma=", "=1", "gamma=[1", "gamma=1,1"):
            with pytest.raises(ConfigError, match="--vary"):
                read_vary(text)

    def test_of_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not exist"):
            read_sweep(str(tmp_path / "none.yaml"))


def test_names_are_readable_folders() -> None:
    cases: dict[str, dict[str, object]] = {
        "learning_rate=3e-05_seed=0": {"learning_rate": 3e-5, "seed": 0},
        "flip=true_clip_range=none": {"pairs.flip": True, "clip_range": None},
        "model=owner-name": {"model": "owner/name"},
        "rewards=a-b+c": {"evaluation.rewards": ["a/b", "c"]},
        "sampling.guidance_scale=2_evaluation.guidance_scale=3": {
            "sampling.guidance_scale": 2,
            "evaluation.guidance_scale": 3,
        },
        "gamma=0.123456789": {"gamma": 0.123456789},
    }
    for name, changes in cases.items():
        assert check_name(name_of(changes)) == name


def test_shards_partition_the_cells() -> None:
    cells = [Cell(name=str(index), keys={}) for index in range(11)]
    for count in (1, 2, 3, 11, 13):
        shards = [shard_of(cells, f"{index + 1}/{count}") for index in range(count)]
        assert sorted(cell.name for shard in shards for cell in shard) == sorted(cell.name for cell in cells)
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert shard_of(cells, None) == cells
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(ConfigError, match="form i/n"):
            shard_of(cells, text)
