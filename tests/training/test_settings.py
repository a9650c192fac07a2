from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedpo.errors import ConfigError, SeedpoError
from seedpo.methods.presets import METHODS
from seedpo.recipes.reading import read_recipe
from seedpo.registry import registries
from seedpo.settings import build_config, changes_results, dotted, merge, nested, parse_override
from seedpo.training.configuration import resolve_config
from seedpo.training.run_folder import create_run_folder
from seedpo.training.settings import RewardRunConfig, RunConfig


def refused(**tree: Any) -> str:
    """The message with which a configuration is refused."""
    with pytest.raises(ConfigError) as failure:
        build_config(RunConfig, tree)
    return str(failure.value)


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            ({"gama": 1.0}, "unknown key 'gama'; did you mean 'gamma'?"),
            (
                {"sampling": {"guidence_scale": 2}},
                "unknown key 'sampling.guidence_scale'; did you mean 'sampling.guidance_scale'?",
            ),
            (
                {"evaluation": {"metric": ["truth"]}},
                "unknown key 'evaluation.metric'; did you mean 'evaluation.metrics'?",
            ),
            (
                {"sampling": {"colour": 1}},
                (
                    "unknown key 'sampling.colour'; the keys here are eta, guidance_scale, num_inference_steps, "
                    "prompts_at_once"
                ),
            ),
        ],
    )
    def test_the_likely_key_is_named(self, tree: dict[str, Any], message: str) -> None:
        assert refused(**tree) == message

    def test_all_problems_are_named_at_once(self) -> None:
        message = refused(gama=1, max_steps=0, sampling={"eta": 2.0})
        for part in ("unknown key 'gama'", "max_steps = 0", "sampling.eta = 2.0"):
            assert part in message
        assert "\n" not in message


class TestValues:
    def test_a_value_out_of_its_range_is_named(self) -> None:
        values: list[tuple[str, Any]] = [
            ("max_steps", 1.5),
            ("max_steps", "many"),
            ("learning_rate", 0),
            ("learning_rate", math.nan),
            ("learning_rate", math.inf),
            ("seed", -1),
            ("adapter", "half"),
            ("mixed_precision", "fp8"),
            ("clip_range", 1.0),
            ("method", 3),
            ("sampling.eta", 0.0),
            ("sampling.num_inference_steps", 1),
            ("steps.candidates", 1),
            ("trajectories.images_per_prompt", 1),
            ("optimizer.beta2", 1.0),
        ]
        for key, value in values:
            assert refused(**nested([(key, value)])).startswith(f"{key} = {value!r}: ")

    @pytest.mark.parametrize(
        ("key", "one", "two"),
        [
            ("lora_targets", "mlp", "attention,mlp"),
            ("trackers", "wandb", "wandb, tensorboard"),
            ("evaluation.rewards", "pickscore@some/place", "pickscore, hpsv2"),
            ("evaluation.metrics", "colourfulness", "colourfulness,rms_contrast"),
            ("alarms.diversity.figures", "free_spread", "free_spread, pairwise_diversity"),
            ("alarms.held_out_rewards", "pickscore", "pickscore,hpsv2"),
        ],
    )
    def test_a_list_needs_no_brackets(self, key: str, one: str, two: str) -> None:
        for text in (one, two):
            plain = dotted(build_config(RunConfig, nested([parse_override(f"{key}={text}")])).tree())
            listed = dotted(build_config(RunConfig, nested([parse_override(f"{key}=[{text}]")])).tree())
            assert plain == listed
            assert len(plain[key]) == 1 + text.count(",")

    def test_a_list_of_numbers_needs_none_either(self) -> None:
        assert build_config(RewardRunConfig, nested([parse_override("timesteps=0,251")])).timesteps == (0, 251)
        with pytest.raises(ConfigError, match=r"^timesteps = 251: write a list, such as \[251\]$"):
            build_config(RewardRunConfig, {"timesteps": 251})

    def test_a_section_must_be_a_group(self) -> None:
        assert refused(sampling=5).startswith("sampling = 5: ")

    def test_weights_that_give_no_loss_are_refused_with_a_way_out(self) -> None:
        """The rules are those of ``seedpo.core.entropy``; here, that a configuration asks them."""
        assert "above 0; leave it out" in refused(beta=-1)
        assert "0 or above" in refused(method="flow-grpo", beta=-1)
        assert "raise gamma above -1" in refused(beta=10.0, gamma=-1)
        assert "raise gamma above -0.5" in refused(beta=0.5, gamma=-0.5, entropy_convention="absolute")
        for name in ("beta", "gamma"):
            assert refused(**{name: math.nan}).startswith(f"{name} = nan: ")
        assert build_config(RunConfig, {"beta": 10.0, "gamma": -0.99}).gamma == -0.99

    def test_a_configuration_cannot_be_changed_unnoticed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            build_config(RunConfig).beta = 2.0  # type: ignore[misc]


class TestNumbers:
    @pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("2E3", 2000.0), ("5", 5.0), ("-1e-2", -1e-2)])
    def test_exponents_are_numbers(self, text: str, value: float) -> None:
        key, found = parse_override(f"gamma={text}")
        assert key == "gamma"
        assert build_config(RunConfig, {"beta": 10.0}, {key: found}).gamma == value

    def test_a_recipe_s_exponents_are_numbers_nested_too(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("learning_rate: 1e-3\noptimizer:\n  weight_decay: 3e-2\n")
        config = build_config(RunConfig, read_recipe(path))
        assert (config.learning_rate, config.optimizer.weight_decay) == (1e-3, 3e-2)

    def test_words_stay_words(self) -> None:
        assert parse_override("data=pairs.parquet") == ("data", "pairs.parquet")
        assert parse_override("reward=nan") == ("reward", "nan")


class TestOverrides:
    def test_values_are_yaml(self) -> None:
        assert parse_override("evaluation.rewards=[a, b]") == ("evaluation.rewards", ["a", "b"])
        assert parse_override(" gamma = 1 ") == ("gamma", 1)
        assert parse_override("clip_range=null") == ("clip_range", None)
        assert parse_override("data=a=b.parquet") == ("data", "a=b.parquet")

    @pytest.mark.parametrize("text", ["gamma", "=1", " =1", ""])
    def test_without_a_key_or_a_value(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is not of the form key=value; write for example --set gamma=1"):
            parse_override(text)

    def test_a_value_that_is_not_yaml(self) -> None:
        with pytest.raises(ConfigError, match=r"--set gamma: the value .* is not YAML"):
            parse_override("gamma=[1")

    def test_dotted_keys_reach_their_section(self) -> None:
        tree = nested([("sampling.eta", 0.5), ("gamma", 1), ("sampling.guidance_scale", 2), ("gamma", 3)])
        assert tree == {"sampling": {"eta": 0.5, "guidance_scale": 2}, "gamma": 3}
        config = build_config(RunConfig, {"sampling": {"num_inference_steps": 7}}, tree)
        assert config.sampling.num_inference_steps == 7
        assert config.sampling.eta == 0.5
        assert config.gamma == 3.0

    def test_a_dotted_path_through_a_value_is_refused(self) -> None:
        assert refused(**nested([("beta.a", 1)])).startswith("beta = {'a': 1}: ")
        assert "unknown key 'beto'" in refused(**nested([("beto.a", 1)]))

    def test_no_and_none_mean_what_the_documentation_says(self) -> None:
        """YAML reads a bare `no` as false, and `none` as a word."""
        config = build_config(RunConfig, {"mixed_precision": "bf16", "clip_range": 0.1})
        for text in ("mixed_precision=no", "clip_range=none"):
            key, value = parse_override(text)
            config = build_config(RunConfig, config.model_dump(), nested([(key, value)]))
        assert config.mixed_precision == "no"
        assert config.clip_range is None
        unset = nested([parse_override("trajectories.steps_per_pair=none")])
        assert build_config(RunConfig, unset) == RunConfig()


class TestLayers:
    def test_the_last_layer_wins_key_by_key(self) -> None:
        layers = {"beta": 1.0, "sampling": {"eta": 0.5, "guidance_scale": 2.0}}, {"beta": 2.0, "sampling": {"eta": 0.7}}
        config = build_config(RunConfig, *layers)
        assert (config.beta, config.sampling.eta, config.sampling.guidance_scale) == (2.0, 0.7, 2.0)

    def test_merging_leaves_its_arguments_alone(self) -> None:
        base, changes = {"a": {"b": 1}}, {"a": {"c": 2}}
        assert merge(base, changes) == {"a": {"b": 1, "c": 2}}
        assert (base, changes) == ({"a": {"b": 1}}, {"a": {"c": 2}})

    def test_no_layer_gives_the_defaults(self) -> None:
        assert build_config(RunConfig) == RunConfig()


class TestRecipes:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"recipe .*absent\.yaml does not exist; `seedpo list recipes`"):
            read_recipe(tmp_path / "absent.yaml")

    @pytest.mark.parametrize("content", [b"a: [1", b"a: b: c", b"\xff\xfe\x00", b"a: \x07"])
    def test_what_is_not_yaml_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"recipe .*bad\.yaml cannot be read as YAML"):
            read_recipe(path)

    @pytest.mark.parametrize("content", ["", "- a\n- b\n", "word", "3"])
    def test_what_is_no_mapping_is_named(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "list.yaml"
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"recipe .*list\.yaml must hold keys and values"):
            read_recipe(path)

    def test_keys_that_are_no_words_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "numbers.yaml"
        path.write_text("1: 2\n")
        with pytest.raises(ConfigError, match="1"):
            build_config(RunConfig, read_recipe(path))

    def test_a_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            read_recipe(tmp_path)

    def test_every_failure_is_one_that_users_can_mend(self) -> None:
        assert issubclass(ConfigError, SeedpoError)


class TestRoundTrip:
    @pytest.mark.parametrize("method", METHODS.names())
    def test_saved_and_read(self, tmp_path: Path, method: str) -> None:
        config = build_config(
            RunConfig,
            METHODS[method].defaults,
            {"method": method, "learning_rate": 1.2345678912345e-5, "gamma": 0.1, "evaluation": {"metrics": ["truth"]}},
        )
        assert create_run_folder(tmp_path / "run", config).read_config(RunConfig) == config

    def test_the_file_holds_every_key(self, tmp_path: Path) -> None:
        content = yaml.safe_load(create_run_folder(tmp_path / "run", RunConfig()).config_file.read_text())
        assert content == RunConfig().model_dump(mode="json")
        assert content["mixed_precision"] == "no"


def test_every_key_is_explained() -> None:
    def undocumented(section: Any, prefix: str = "") -> list[str]:
        found = []
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                found += undocumented(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                found.append(prefix + name)
        return found

    assert undocumented(RunConfig) == []


def test_names_among_the_defaults_are_registered() -> None:
    embedded = resolve_config("spo")
    assert embedded.data in registries()["data"]
    assert embedded.reward in registries()["rewards"]
    for config in (RunConfig(), embedded):
        _names_are_registered(config)


def _names_are_registered(config: RunConfig) -> None:
    assert config.method in registries()["methods"]
    assert config.model in registries()["models"]
    assert config.prompts in registries()["prompts"]
    assert config.evaluation.prompts in registries()["prompts"]
    assert all(name in registries()["rewards"] for name in config.evaluation.rewards)
    assert all(name in registries()["metrics"] for name in config.evaluation.metrics)


def test_which_keys_change_no_result() -> None:
    """Resuming, sweeps and reports ask this one function; a key that is new counts as one that changes results."""
    keys = dotted(RunConfig().tree())
    harmless = {key for key in keys if not changes_results(RunConfig, key)}
    assert {key for key in harmless if not key.startswith("alarms.")} == {
        *("log_every", "pairs.readers", "checkpoint_every", "checkpoints_limit", "trackers", "tracker_project"),
        *("cache.folder", "cache.latents", "cache.prompts"),
        *("feedback.poll_seconds", "feedback.timeout_hours"),
    }
    assert {key for key in keys if key.startswith("alarms.")} <= harmless
    assert changes_results(RunConfig, "rewards.mine.weights")
    assert changes_results(RunConfig, "nothing.of.this.name")
