"""Paths in a recipe begin at the recipe; names of the package and of the hub stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from seedpo.recipes import FOLDER, RECIPES
from seedpo.recipes.reading import anchored, read_recipe
from seedpo.settings import Place, Section
from seedpo.training.configuration import resolve_config
from seedpo.training.settings import RewardRunConfig, RunConfig
from seedpo.training.sweeps.definition import read_sweep

NO_PLACES = {
    "method",
    "lora_targets",
    "keep_best",
    "metric",
    "loss",
    "tracker_project",
    "question",
    "split",
    "held_out_split",
    "validation_split",
    "columns",
    "noise_weight",
    "url",
    "key_env",
    "body",
    "aspect",
    "rewards.http.reward",
    "rewards.vlm.model",
}
"""Keys that hold text, but never a path: their last part, or the whole where another key ends alike."""


def text_keys(kind: type[Section], prefix: str = "") -> dict[str, bool]:
    """Every dotted key that may hold a text of one's own, and whether it is marked as a place."""

    def parts(annotation: Any) -> list[Any]:
        return [annotation, *(inner for part in get_args(annotation) for inner in parts(part))]

    keys: dict[str, bool] = {}
    for name, field in kind.model_fields.items():
        inner = [*parts(field.annotation), *field.metadata]
        sections = [part for part in inner if isinstance(part, type) and issubclass(part, Section)]
        if str in inner:
            keys[prefix + name] = any(isinstance(part, Place) for part in inner)
        for section in sections:
            keys |= text_keys(section, f"{prefix}{name}.")
    return keys


@pytest.mark.parametrize("kind", [RunConfig, RewardRunConfig])
def test_every_key_with_text_is_a_place_or_is_known_to_be_none(kind: type[Section]) -> None:
    unmarked = {key for key, marked in text_keys(kind).items() if not marked} - NO_PLACES
    unknown = {key for key in unmarked if key.rpartition(".")[2] not in NO_PLACES}
    assert unknown - {"rewards"} == set()  # of `rewards` the terms are marked


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("pairs", "more", "models/own", "rewards/pick"):
        (tmp_path / "conf" / name).mkdir(parents=True)
    (tmp_path / "conf" / "prompts.txt").write_text("a fox\n")
    (tmp_path / "conf" / "shard-000.tar").write_bytes(b"")
    (tmp_path / "conf" / "scenes").mkdir()
    return tmp_path / "conf"


def test_each_kind_of_value(project: Path) -> None:
    tree = {
        "model": "models/own",
        "vae": "madebyollin/sdxl-vae-fp16-fix",
        "data": ["pairs/", {"name": "./absent", "weight": 2}, "shard-{000..012}.tar", "hub:owner/name", "hub:./pairs"],
        "prompts": "prompts.txt",
        "reward": "pickscore@rewards/pick",
        "rewards": {"prompts.txt": {"terms": {"rewards/pick": 1.0, "clip-score": {"weight": 2.0}}}},
        "pairs": {"image_folder": "../pairs", "validation": 0.1, "resolution": 64},
        "cache": {"folder": "cache"},
        "evaluation": {"prompts": "~/p.txt", "rewards": ["aesthetic@absent", "module:function", "rewards/pick"]},
    }
    place = str(project)
    assert anchored(tree, RunConfig, project) == {
        "model": f"{place}/models/own",
        "vae": "madebyollin/sdxl-vae-fp16-fix",
        "data": [
            f"{place}/pairs/",
            {"name": f"{place}/absent", "weight": 2},
            f"{place}/shard-{{000..012}}.tar",
            "hub:owner/name",
            f"hub:{place}/pairs",
        ],
        "prompts": f"{place}/prompts.txt",
        "reward": f"pickscore@{place}/rewards/pick",
        "rewards": {"prompts.txt": {"terms": {f"{place}/rewards/pick": 1.0, "clip-score": {"weight": 2.0}}}},
        "pairs": {"image_folder": str(project.parent / "pairs"), "validation": 0.1, "resolution": 64},
        "cache": {"folder": f"{place}/cache"},
        "evaluation": {
            "prompts": str(Path("~/p.txt").expanduser()),
            "rewards": ["aesthetic@absent", "module:function", f"{place}/rewards/pick"],
        },
    }


def test_entries_of_a_list_without_brackets(project: Path) -> None:
    tree = anchored({"evaluation": {"rewards": "rewards/pick, module:function"}}, RunConfig, project)
    assert tree == {"evaluation": {"rewards": [f"{project}/rewards/pick", "module:function"]}}
    alarms = {"alarms": {"held_out_rewards": "none"}}
    assert anchored(alarms, RunConfig, project) == alarms


def test_registered_names_win_over_folders_of_that_name(project: Path) -> None:
    assert anchored({"model": "scenes"}, RunConfig, project) == {"model": "scenes"}


def test_a_base_elsewhere_keeps_its_paths(project: Path) -> None:
    (project / "base.yaml").write_text(yaml.safe_dump({"method": "diffusion-dpo", "model": "scenes", "data": "pairs"}))
    (project.parent / "mine.yaml").write_text(yaml.safe_dump({"base": "conf/base.yaml", "prompts": "conf/prompts.txt"}))
    tree = read_recipe(project.parent / "mine.yaml", RunConfig)
    assert tree["data"] == str(project / "pairs")
    assert tree["prompts"] == str(project / "prompts.txt")
    config = resolve_config(str(project.parent / "mine.yaml"), {"prompts": "prompts.txt"})
    assert config.prompts == "prompts.txt", "--set begins where the command runs"


def test_a_recipe_of_the_package_as_method_and_as_base(project: Path) -> None:
    (project / "mine.yaml").write_text(yaml.safe_dump({"base": "lora-sd15-12gb", "data": "pairs"}))
    config = resolve_config(str(project / "mine.yaml"))
    assert config.data == str(project / "pairs")
    assert config.beta == resolve_config("lora-sd15-12gb", {"data": "pairs"}).beta == 2000
    assert sorted(RECIPES.names()) == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert all(0 < len(entry.summary) <= 125 for entry in RECIPES.entries)


def test_values_of_a_sweep_begin_at_its_file(project: Path) -> None:
    sweep = {
        "base": {"method": "diffusion-dpo", "model": "scenes"},
        "grid": {"data": ["pairs", "more"], "beta": [1, 2]},
    }
    (project / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    grid = read_sweep(str(project / "sweep.yaml")).grid
    assert grid == {"data": [str(project / "pairs"), str(project / "more")], "beta": [1, 2]}
