"""Defaults follow from the model; what a run needs and nobody named is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.models.catalogue import MODELS
from seedpo.registry import registries
from seedpo.settings import dotted, merge
from seedpo.training.configuration import resolve_config, resolve_reward_config
from seedpo.training.settings import RunConfig

OWN: dict[str, Any] = {"model": "owner/name", "reward": "pickscore"}


class TestResolving:
    def test_defaults_preset_recipe_changes_in_this_order(self, tmp_path: Path) -> None:
        recipe = tmp_path / "a.yaml"
        recipe.write_text(
            "method: spo\nmodel: owner/name\nreward: pickscore\n"
            "learning_rate: 1e-3\ngamma: 0.5\nsteps:\n  candidates: 3\n"
        )
        config = resolve_config(str(recipe), {"gamma": 1.0, "steps": {"min_gap": 0.1}}, bfloat16=False)
        assert config.method == "spo"
        assert (config.beta, config.clip_range) == (10.0, 0.1), "from the preset"
        assert (config.learning_rate, config.steps.candidates) == (1e-3, 3), "from the recipe"
        assert (config.gamma, config.steps.min_gap) == (1.0, 0.1), "from the changes"
        assert config.steps.plain_steps == 4, "from the defaults"

    def test_real_models_compute_in_bfloat16_where_a_gpu_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The embedded model does not, so that its figures are the same everywhere."""
        cases: list[tuple[dict[str, Any], bool, str]] = [
            ({}, True, "no"),
            (OWN, True, "bf16"),
            (OWN, False, "no"),
            (OWN | {"mixed_precision": "fp16"}, True, "fp16"),
            (OWN | {"mixed_precision": "no"}, True, "no"),
        ]
        for changes, bfloat16, expected in cases:
            self._check_precision(changes, bfloat16, expected, monkeypatch)

    def _check_precision(
        self, changes: dict[str, Any], bfloat16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert resolve_config("spo", changes, bfloat16=bfloat16).mixed_precision == expected
        monkeypatch.setattr("seedpo.models.gpu.gpu_has_bfloat16", lambda: bfloat16)
        assert resolve_config("spo", changes).mixed_precision == expected

    def test_changing_the_method_changes_the_preset(self) -> None:
        assert resolve_config("spo", OWN | {"method": "d3po"}, bfloat16=False).beta == 0.1

    def test_an_unknown_method_lists_the_methods(self) -> None:
        with pytest.raises(ConfigError, match=r"'spoo'; did you mean 'spo'\? there are: diffusion-dpo, "):
            resolve_config("spoo")


@pytest.mark.parametrize("method", METHODS.names())
class TestModels:
    def test_a_registered_model_brings_its_settings_and_those_of_the_method(self, method: str) -> None:
        for row in MODELS.entries:
            keys = dotted(resolve_config(method, {"model": row.name}).tree())
            brought = dotted(merge(*row.layers(method)))
            assert {key: keys[key] for key in brought} == brought
        assert resolve_config(method).model == "scenes"

    def test_other_models_get_what_any_model_can_use(self, method: str) -> None:
        named = {"model": "owner/name", "data": "pairs.parquet", "reward": "pickscore"}
        config = resolve_config(method, named, bfloat16=False)
        for name in config.evaluation.metrics:
            entry: Any = registries()["metrics"][name]
            assert entry.image_size is None
            assert entry.features is None, "it needs no weights"
        assert config.evaluation.rewards == ()
        for name in (config.prompts, config.evaluation.prompts):
            assert not name.startswith("scenes")
        assert config.optimizer == RunConfig().optimizer

    def test_what_the_user_wrote_wins_over_the_model(self, method: str) -> None:
        assert resolve_config(method, {"learning_rate": 0.5, "max_steps": 3}).learning_rate == 0.5


class TestOwnData:
    @pytest.mark.parametrize("data", ["photos/", "hub:owner/name", "pairs.parquet", "scenes-pears"])
    def test_need_a_named_model(self, data: str, tmp_path: Path) -> None:
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(f"method: diffusion-dpo\ndata: {data}\n")
        for source, changes in (("diffusion-dpo", {"data": data}), (str(recipe), {})):
            with pytest.raises(ConfigError, match=rf"data = {data} .* no model is named; set model .* scenes"):
                resolve_config(source, changes)
            named = resolve_config(source, changes | {"model": "scenes"})
            assert (named.model, named.data) == ("scenes", data)

    def test_a_registered_set_needs_none(self) -> None:
        assert resolve_config("diffusion-dpo", {"data": "scenes-held-out-pairs"}).model == "scenes"

    def test_of_a_preference_model_need_both_its_parts_named(self) -> None:
        for key, named in (("start", {"model": "scenes"}), ("model", {"start": "scenes-clip"})):
            for own in ("data", "held_out"):
                with pytest.raises(ConfigError, match=rf"{own} = mine .* no {key} is named"):
                    resolve_reward_config(changes={own: "mine", **named})
        plain = resolve_reward_config(changes={"data": "mine", "model": None, "start": "scenes-clip"})
        assert plain.model is None


def test_what_an_own_model_needs_is_named() -> None:
    for method, key, named in (
        ("diffusion-dpo", "data", {}),
        ("spo", "reward", {}),
        ("d3po", "reward", {"data": "pairs/"}),
    ):
        with pytest.raises(ConfigError, match=f"set {key} to"):
            resolve_config(method, {"model": "owner/name", **named}, bfloat16=False)
    people = {"model": "owner/name", "feedback": {"study": "studies/mine"}}
    assert resolve_config("d3po", people, bfloat16=False).reward is None


def test_a_refusal_of_what_was_written_waits_for_no_torch() -> None:
    for arguments in (["spo", {"gama": 1}], ["spoo", {}], ["diffusion-dpo", {"data": "mine/"}]):
        code = (
            "import sys\nfrom seedpo.errors import ConfigError\n"
            "from seedpo.training.configuration import resolve_config\n"
            f"try:\n    resolve_config(*{arguments!r})\nexcept ConfigError:\n"
            "    sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'peft')))\n"
            "sys.exit(2)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, arguments
