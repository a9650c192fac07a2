"""What `seedpo init` writes fits the pairs, the model and the memory, and a run takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from seedpo.cli import app
from seedpo.errors import ConfigError, DataError
from seedpo.models.pipeline_classes import FAMILIES, FamilyEntry
from seedpo.planning.first_recipe import Kind, first_recipe, kind_of_name, memory_of
from seedpo.recipes import RECIPES
from seedpo.recipes.reading import read_recipe
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


def kind(name: str) -> Kind:
    return Kind(family=FAMILIES[name], why="")


def test_the_largest_recipe_that_fits() -> None:
    sd15, sdxl = kind("StableDiffusionPipeline"), kind("StableDiffusionXLPipeline")
    assert [sd15.recipe(memory) for memory in (8, 11.9, 12, 80)] == [
        "lora-sd15-8gb",
        "lora-sd15-8gb",
        "lora-sd15-12gb",
        "lora-sd15-12gb",
    ]
    assert sdxl.recipe(24) == "lora-sdxl-24gb"
    with pytest.raises(ConfigError, match=r"memory = 8 GB .*lora-sdxl-16gb"):
        sdxl.recipe(8)


def test_a_well_known_model_gets_its_own_recipe_and_no_smaller_model_s() -> None:
    medium, large = (kind_of_name(f"stabilityai/stable-diffusion-3.5-{size}") for size in ("medium", "large"))
    assert (medium.recipe(24), medium.recipe(80), large.recipe(80)) == (
        "lora-sd35-24gb",
        "lora-sd35-24gb",
        "lora-sd35-80gb",
    )
    with pytest.raises(ConfigError, match=r"memory = 24 GB .*stable-diffusion-3.5-large.* 80 GB"):
        large.recipe(24)
    unknown = kind_of_name("somebody/my-sd3-finetune")
    assert unknown.checkpoint is None
    assert (unknown.recipe(24), unknown.recipe(80)) == ("lora-sd35-24gb", "lora-sd35-80gb")


def test_every_recipe_for_a_lora_belongs_to_a_well_known_model_that_it_trains() -> None:
    for family in FAMILIES.entries:
        for checkpoint in family.checkpoints:
            for name in checkpoint.recipes:
                assert read_recipe(name)["model"] == checkpoint.name, name
    named = {name for family in FAMILIES.entries for name in family.recipes}
    assert named == {name for name in RECIPES.names() if name.startswith("lora-")}
    assert all(8 <= memory_of(name) <= 80 for name in named)


@pytest.mark.parametrize("family", FAMILIES.entries, ids=lambda family: family.name)
def test_every_family_is_told_by_its_folder_and_its_names_on_the_hub(family: FamilyEntry, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": family.name}))
    assert kind_of_name(str(tmp_path)).family == family
    for checkpoint in family.checkpoints:
        owner, _, name = checkpoint.name.partition("/")
        assert kind_of_name(f"{owner}/{name}").family == family
        assert kind_of_name(f"somebody-else/tuned-{name}").family == family, "told by a word"


def test_flow_models_keep_what_they_compute(tmp_path: Path) -> None:
    data = str(few_pairs(tmp_path))
    path = tmp_path / "run.yaml"
    recipe = first_recipe(path, data=data, model="stabilityai/stable-diffusion-3.5-medium", memory=24.0)
    assert recipe.caches
    path.write_text(recipe.text)
    config = resolve_config(str(path))
    assert (config.model, config.beta, config.lora_alpha) == ("stabilityai/stable-diffusion-3.5-medium", 2000, 64)
    assert config.cache.folder == str(tmp_path / "run-cache")
    assert config.cache.reference
    assert not first_recipe(path, data=data, model="owner/name", memory=24.0).caches


def test_models_that_no_recipe_is_for(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model_index.json").write_text("{")
    with pytest.raises(DataError, match=r"model_index\.json"):
        kind_of_name(str(tmp_path / "damaged"))
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}))
    for model, reason in (
        (str(tmp_path / "unknown"), "KolorsPipeline"),
        (str(tmp_path), "model_index.json"),
        ("absent.safetensors", "absent.safetensors"),
        ("scenes", "scenes"),
    ):
        with pytest.raises(ConfigError, match=reason):
            kind_of_name(model)


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
