"""What `seedpo init` writes fits the pairs, the model and the memory, and a run takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from seedpo.cli import app
from seedpo.errors import ConfigError, DataError
from seedpo.planning.first_recipe import family_of_name, first_recipe, recipe_for
from seedpo.recipes import RECIPES
from seedpo.scenes.shipped import scenes_folder
from seedpo.training.configuration import resolve_config
from tests.small_runs import few_pairs


def test_the_recipe_resolves_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    few_pairs(tmp_path / "mine")
    (tmp_path / "model").symlink_to(scenes_folder())
    monkeypatch.chdir(tmp_path)
    path = Path("mine/run.yaml")
    recipe = first_recipe(path, data="mine/pairs.parquet", model="model", memory=13.0)
    path.write_text(recipe.text)
    monkeypatch.chdir(tmp_path / "mine")
    config = resolve_config("run.yaml")
    assert Path(str(config.data)).resolve() == tmp_path / "mine" / "pairs.parquet"
    assert Path(config.model).resolve() == scenes_folder().resolve()
    assert config.pairs.resolution == 32, "the model's own size"
    assert config.pairs.validation is None, "too few pairs"
    assert config.batch_size == resolve_config("lora-sd15-12gb", {"data": "x/"}).batch_size
    assert len(recipe.text.splitlines()) <= 18


@pytest.mark.parametrize(("pairs", "steps", "trained"), [(200, 225, 180), (1000, 1125, 900), (40, 45, 36), (10, 40, 9)])
def test_each_pair_is_seen_about_twenty_times(pairs: int, steps: int, trained: int) -> None:
    from seedpo.planning.first_recipe import steps_for

    keys = {"batch_size": 4, "gradient_accumulation_steps": 4}
    assert steps_for(pairs, keys, 0.1) == (steps, trained)


def test_the_largest_recipe_that_fits() -> None:
    assert [recipe_for("sd15", memory) for memory in (8, 11.9, 12, 80)] == [
        "lora-sd15-8gb",
        "lora-sd15-8gb",
        "lora-sd15-12gb",
        "lora-sd15-12gb",
    ]
    assert recipe_for("sdxl", 24) == "lora-sdxl-24gb"
    with pytest.raises(ConfigError, match=r"memory = 8 GB .*lora-sdxl-16gb"):
        recipe_for("sdxl", 8)
    assert all(recipe_for(name.split("-")[1], 1000) in RECIPES for name in RECIPES.names() if name.startswith("lora-"))


def test_families(tmp_path: Path) -> None:
    for name in ("StableDiffusionXLPipeline", "FluxPipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(json.dumps({"_class_name": name}))
    assert family_of_name(str(tmp_path / "StableDiffusionXLPipeline"))[0] == "sdxl"
    assert family_of_name("stabilityai/stable-diffusion-xl-base-1.0")[0] == "sdxl"
    assert family_of_name("stable-diffusion-v1-5/stable-diffusion-v1-5")[0] == "sd15"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model_index.json").write_text("{")
    with pytest.raises(DataError, match=r"model_index\.json"):
        family_of_name(str(tmp_path / "damaged"))
    for model, reason in (
        (str(tmp_path / "FluxPipeline"), "FluxPipeline"),
        (str(tmp_path), "model_index.json"),
        ("absent.safetensors", "absent.safetensors"),
        ("scenes", "scenes"),
    ):
        with pytest.raises(ConfigError, match=reason):
            family_of_name(model)


def test_the_command_asks_nobody_without_a_terminal_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    model, data = str(scenes_folder()), str(few_pairs(tmp_path))
    run = CliRunner().invoke
    for options, name in ((["--model", model], "--data"), (["--data", data, "--model", model], "--memory")):
        result = run(app, ["init", str(path), *options])
        assert isinstance(result.exception, ConfigError)
        assert name in str(result.exception)
        assert not path.exists()
    options = ["--data", data, "--model", model, "--memory", "12"]
    assert run(app, ["init", str(path), *options]).exit_code == 0
    assert yaml.safe_load(path.read_text())["base"] == "lora-sd15-12gb"
    text = path.read_text()
    assert isinstance(run(app, ["init", str(path), *options]).exception, ConfigError)
    assert path.read_text() == text
