"""``seedpo config`` and ``seedpo --version``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedpo.cli import main
from seedpo.keys import all_keys, groups
from seedpo.methods.presets import METHODS
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.layers import Layer, default_layers, marked_yaml
from seedpo.training.settings import RewardRunConfig, RunConfig


def output(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert not end.value.code
    return capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def layer_of(text: str, key: str) -> str:
    """The layer that the line of a key names."""
    (line,) = (line for line in text.splitlines() if re.match(rf" *{key}: ", line))
    return line.partition("  # ")[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("method: spo\nbeta: 3\noptimizer: {beta1: 0.8}\n", encoding="utf-8")
    path = tmp_path / "mine.yaml"
    own = "base: base.yaml\nbeta: 4\noptimizer: {beta2: 0.99}\nrewards: {mine: {terms: {scenes-scorer: 2}}}\n"
    path.write_text(own, encoding="utf-8")
    return path


class TestShow:
    def test_each_value_names_its_layer(self, capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
        text = output(capsys, "config", "show", recipe, "--set", "sampling.eta=0.5")
        expected = {
            "method": "base recipe base.yaml",
            "beta": "recipe",
            "beta1": "base recipe base.yaml",
            "beta2": "recipe",
            "weight": "recipe",
            "learning_rate": "model scenes with spo",
            "lora_rank": "model scenes",
            "eta": "--set",
        }
        assert {key: layer_of(text, key) for key in expected} == expected
        assert "weight_decay" not in text

    @pytest.mark.parametrize("options", [(), ("--all",)])
    def test_it_is_what_a_run_resolves_to(
        self, capsys: pytest.CaptureFixture[str], recipe: Path, options: tuple[str, ...]
    ) -> None:
        text = output(capsys, "config", "show", recipe, "--set", "gamma=1", *options)
        assert build_config(RunConfig, yaml.safe_load(text)) == resolve_config(str(recipe), {"gamma": 1.0})

    def test_all_has_every_key(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = output(capsys, "config", "show", "d3po", "--all")
        assert build_config(RunConfig, yaml.safe_load(text)) == resolve_config("d3po")
        assert layer_of(text, "weight_decay") == "default"

    def test_a_run_folder_shows_what_was_changed(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        config = resolve_config("spo", {"gamma": 1.0})
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.tree()), encoding="utf-8")
        text = output(capsys, "config", "show", tmp_path)
        assert layer_of(text, "gamma") == "run"
        assert layer_of(text, "clip_range") == "model scenes"
        assert build_config(RunConfig, yaml.safe_load(text)) == config

    def test_a_recipe_of_a_preference_model_is_one(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "scorer.yaml"
        path.write_text("held_out_share: 0.2\nclean_share: 0.5\n", encoding="utf-8")
        text = output(capsys, "config", "show", path)
        assert layer_of(text, "max_steps") == "no data named"
        assert build_config(RewardRunConfig, yaml.safe_load(text)).clean_share == 0.5

    def test_models_of_ones_own_say_their_precision(self, capsys: pytest.CaptureFixture[str]) -> None:
        last = output(capsys, "config", "show", "spo", "--set", "model=models/mine").splitlines()[-1]
        assert last.startswith("# mixed_precision")

    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (("spoo",), "did you mean 'spo'"),
            (("missing.yaml",), "missing.yaml does not exist"),
            (("spo", "--set", "lr=1"), "'learning_rate'"),
            (("spo", "--set", "beta=x"), "beta = 'x'"),
        ],
    )
    def test_mistakes_are_refused(
        self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], part: str
    ) -> None:
        assert part in refusal(capsys, "config", "show", *arguments)


class TestExplain:
    def test_a_key_with_the_values_of_methods_and_models(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = output(capsys, "config", "explain", "clip_range")
        for layer in default_layers(METHODS["spo"], "scenes")[:2]:
            assert re.search(rf"{layer.name.split()[1]}: +{str(layer.keys['clip_range']).lower()}", text)
        assert "above 0" in text

    @pytest.mark.parametrize("kind", [RunConfig, RewardRunConfig])
    def test_every_key_and_section_is_explained(self, kind: type[RunConfig]) -> None:
        from seedpo.cli.configuration import explanation

        for name in [*all_keys(kind), *(group.name for group in groups(kind) if group.name)]:
            assert any(line.startswith(name) for line in explanation(name, 80).splitlines())

    def test_a_section_lists_its_keys(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = output(capsys, "config", "explain", "alarms")
        assert all(name in text for name in all_keys(RunConfig) if name.startswith("alarms."))

    def test_without_a_key_all_sections_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = output(capsys, "config", "explain")
        assert all(f"  {group.name} " in text for group in groups(RunConfig))

    def test_a_key_that_only_preference_models_have(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "held_out_share" in output(capsys, "config", "explain", "held_out_share")

    def test_an_unknown_key_names_near_ones(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "'optimizer.warmup_steps'" in refusal(capsys, "config", "explain", "warmup_step")


def test_a_value_in_place_of_a_section_owns_what_is_below_it() -> None:
    tree = {"terms": {"a": {"weight": 1.0, "mean": None}}}
    text = marked_yaml(
        tree, [Layer(name="x", keys={"terms": {"a": {"mean": 2}}}), Layer(name="y", keys={"terms": {"a": 1}})]
    )
    assert layer_of(text, "weight") == layer_of(text, "mean") == "y"


def test_versions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    names = [line.split()[0] for line in output(capsys, "--version").splitlines()]
    assert names == ["seedpo", "Python", "torch", "diffusers", "transformers", "peft", "accelerate"]


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["config", "explain", "beta"], ["config", "show", "lora-sd15-12gb", "--set", "gamma=1"]],
)
def test_none_of_them_imports_torch(arguments: list[str]) -> None:
    code = f"import sys; from seedpo.cli import app; app({arguments!r}, standalone_mode=False); "
    code += "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
