"""Every recipe: its keys are known, its settings are the published ones, and its first steps run.

The steps run on tiny pipelines of the very classes that the recipe trains, with its own optimiser, adapter, objective,
source and reward classes; what is replaced are weights, data and sizes.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import CLIPModel

from seedpo.core.entropy import entropy_weights
from seedpo.data.catalogue import PROMPTS
from seedpo.data.prompts.reading import load_prompts
from seedpo.errors import ConfigError, DataError
from seedpo.models.families import family_of
from seedpo.recipes import FOLDER
from seedpo.recipes.reading import read_recipe
from seedpo.rewards.aesthetic import RatingMlp
from seedpo.rewards.named import build_reward
from seedpo.rewards.spm import SD15_WEIGHTS, SDXL_WEIGHTS
from seedpo.settings import dotted, merge
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_evaluation, train
from seedpo.training.settings import RunConfig
from tests.models import language_pipelines, qwen_pipelines
from tests.models.flow_pipelines import FLUX_KINDS, SD3_KINDS, flow_pipeline
from tests.models.published import pipeline_of
from tests.rewards import plain_lrm
from tests.rewards.plain_spm import checkpoint, publish
from tests.rewards.tiny_clip import tiny_config, tiny_model, tiny_tokenizer
from tests.small_runs import few_pairs, few_prompts
from tests.training.toys import cpu_accelerator

REWARDS = ("pickscore", "spm-sd15", "spm-sdxl")
"""Recipes of preference models: tests/training/test_reward_run.py."""
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem not in REWARDS)
BASES = [path for path in RECIPES if not path.name.startswith(("see-", "lora-"))]
"""The published runs, each of which has its SEE variant."""
ONE_OF_EACH = {"diffusion-dpo-sd15", "see-diffusion-dpo-sdxl", "d3po-pickscore", "see-spo-sd15", "spo-sdxl"}
ONE_OF_EACH |= {"see-lpo-sd15", "lpo-sdxl"}
"""Every method, every model class and a gamma with each method but D3PO; the others differ from these in settings."""

SIZES: dict[str, Any] = {
    "max_steps": 2,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "lora_rank": 4,
    "base_precision": "full",
    "trajectories": {"prompts_per_rollout": 1},
    "steps": {"prompts_per_rollout": 1, "min_gap": 0.0, "min_gap_noisiest": None},
    "sampling": {"num_inference_steps": 8},
    "evaluation": {"num_prompts": 1, "images_per_prompt": 2, "num_inference_steps": 2},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipelines `sd15` and `sdxl`, and small checkpoints of the rewards, as they are published."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("sd15", *KINDS.values()):
        small_pipeline(kind).save_pretrained(folder / kind)
    tokenizer = tiny_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    for name, model in (("clip", CLIPModel(tiny_config(tokenizer))), ("step-aware", tiny_model(tokenizer))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    torch.save(RatingMlp((8, 16, 8, 8, 4, 1)).state_dict(), folder / "clip" / "aesthetic-model.pth")
    for file in (SD15_WEIGHTS, SDXL_WEIGHTS):
        publish(folder / "spm", checkpoint(len(tokenizer)), tokenizer, file=file)
    for kind in ("sd15", "sdxl"):
        plain_lrm.publish(folder / "lrm", kind)
    return folder


KINDS = {
    "xl": "sdxl",
    "3.5-medium": "sd35",
    "3.5-large": "sd3",
    "FLUX.1": "flux-dev",
    "FLUX.2-dev": "flux2",
    "klein": "klein",
    "Sana": "sana",
    "Z-Image": "z-image",
    "Qwen-Image": "qwen-image",
}
"""Small pipelines by a part of a model's name."""


def small_pipeline(kind: str) -> Any:
    if kind in language_pipelines.KINDS:
        return language_pipelines.language_pipeline(kind)
    if kind in ("z-image", "qwen-image"):
        return qwen_pipelines.pipeline_of(kind)
    return flow_pipeline(kind) if kind in SD3_KINDS + FLUX_KINDS else pipeline_of(kind)


def kind_of(config: RunConfig) -> str:
    return next((kind for part, kind in KINDS.items() if part in config.model), "sd15")


PLACES = {"pickscore": "clip", "aesthetic": "clip", "spm-sd15": "spm", "spm-sdxl": "spm"}
PLACES |= {"lrm-sd15": "lrm", "lrm-sdxl": "lrm"}
"""Which small checkpoint a reward is read from."""


def stand_in(models: Path, reward: str) -> str:
    """The reward itself, from a small checkpoint if it has one."""
    return f"{reward}@{models / PLACES[reward]}" if reward in PLACES else reward


def test_there_is_one_for_every_method_and_model_and_each_with_gamma() -> None:
    wanted = {"diffusion-dpo-sd15", "diffusion-dpo-sdxl", "spo-sd15", "spo-sdxl"}
    wanted |= {"lpo-sd15", "lpo-sdxl"}
    wanted |= {f"d3po-{reward}" for reward in ("aesthetic", "compressibility", "pickscore")}
    assert {path.stem for path in BASES} == wanted
    published = {path.stem for path in RECIPES if not path.name.startswith("lora-")}
    assert published == wanted | {f"see-{name}" for name in wanted}
    assert {(resolve_config(name).method, kind_of(resolve_config(name))) for name in chosen()} == {
        ("diffusion-dpo", "sd15"),
        ("diffusion-dpo", "sdxl"),
        ("d3po", "sd15"),
        ("spo", "sd15"),
        ("spo", "sdxl"),
        ("lpo", "sd15"),
        ("lpo", "sdxl"),
    }


def chosen() -> list[str]:
    return [str(path) for path in RECIPES if path.stem in ONE_OF_EACH]


def test_keys_are_known_and_the_command_names_the_file() -> None:
    for path in RECIPES:
        config = resolve_config(path.stem, {"data": "my_pairs/"} if path.name.startswith("lora-") else {})
        assert re.search(rf"#   seedpo train {path.stem} .*--out", path.read_text(encoding="utf-8")), path.name
        assert len(load_prompts(config.evaluation.prompts)) >= config.evaluation.num_prompts, path.name


DIFFUSION_DPO = {
    "total": 2048,
    "adapter": "full",
    "learning_rate": 2.048e-5,
    "max_steps": 2000,
    "clip_range": None,
    "pairs.ties": "drop",
}
ONLINE = {
    "clip_range": 0.1,
    "sampling.num_inference_steps": 20,
    "sampling.eta": 1.0,
    "sampling.guidance_scale": 5.0,
    "optimizer.weight_decay": 1e-4,
    "optimizer.max_grad_norm": 1.0,
    "optimizer.name": "adamw",
    "adapter": "lora",
}
D3PO = ONLINE | {
    "beta": 0.1,
    "total": 20,
    "learning_rate": 3e-5,
    "lora_rank": 4,
    "trajectories.images_per_prompt": 2,
    "trajectories.steps_per_pair": None,
    "trajectories.update_per": "pair",
}
SPO = ONLINE | {"beta": 10.0, "steps.plain_steps": 4}
LPO = ONLINE | {"beta": 500.0, "steps.plain_steps": 0, "steps.candidates": 4, "steps.inner_steps": 0}
PUBLISHED: dict[str, dict[str, Any]] = {
    "diffusion-dpo-sd15": DIFFUSION_DPO
    | {"beta": 2000.0, "optimizer.name": "adamw", "optimizer.warmup_steps": 500, "pairs.resolution": 512},
    "diffusion-dpo-sdxl": DIFFUSION_DPO
    | {"beta": 5000.0, "optimizer.name": "adafactor", "optimizer.warmup_steps": 200, "pairs.resolution": 1024},
    "d3po-compressibility": D3PO | {"reward": "jpeg-compressibility"},
    "d3po-aesthetic": D3PO | {"reward": "aesthetic"},
    "d3po-pickscore": D3PO | {"reward": "pickscore"},
    "spo-sd15": SPO
    | {"reward": "spm-sd15"}
    | {"total": 40, "learning_rate": 6e-5, "lora_rank": 4, "steps.candidates": 4, "steps.min_gap": 0.3}
    | {"steps.inner_steps": 0},
    "spo-sdxl": SPO
    | {"reward": "spm-sdxl"}
    | {"total": 16, "learning_rate": 1e-5, "lora_rank": 64, "steps.candidates": 2, "steps.min_gap": 0.4}
    | {"steps.inner_steps": 3},
    "lpo-sd15": LPO
    | {"reward": "lrm-sd15", "total": 40, "learning_rate": 6e-5, "lora_rank": 4}
    | {"steps.min_gap": 0.35, "steps.min_gap_noisiest": 0.5},
    "lpo-sdxl": LPO
    | {"reward": "lrm-sdxl", "total": 16, "learning_rate": 1e-5, "lora_rank": 64}
    | {"steps.min_gap": 0.45, "steps.min_gap_noisiest": 0.6},
}
"""The table of published settings, written a second time; `total` are the pairs of an update."""


def test_settings_are_the_published_ones() -> None:
    for name, published in PUBLISHED.items():
        config = resolve_config(name)
        keys = dotted(config.model_dump()) | {"total": config.batch_size * config.gradient_accumulation_steps}
        wanted = published | {"gamma": 0.0, "reduction": "mean"}
        assert {key: keys[key] for key in wanted} == wanted, name
        assert not any(config.fidelity.model_dump().values())


def test_see_is_the_base_with_gamma_and_names_its_controls() -> None:
    for path in BASES:
        see_path = path.with_name(f"see-{path.name}")
        base, see = resolve_config(str(path)), resolve_config(str(see_path))
        assert see.gamma > 0
        assert see.model_copy(update={"gamma": 0.0}) == base, path.name
        a, _ = entropy_weights(see.beta, see.gamma, convention=see.entropy_convention)
        lines = see_path.read_text(encoding="utf-8").splitlines()
        (command,) = [line for line in lines if "--out" in line and "--set beta=" in line]
        assert f" {path.stem} " in command
        assert math.isclose(float(command.rpartition("=")[2]), a)


def tiny_settings(path: Path, models: Path, folder: Path) -> RunConfig:
    """The recipe with its weights, data and sizes replaced."""
    config = resolve_config(str(path), {"data": "my_pairs/"} if path.name.startswith("lora-") else {})
    kind = str(models / kind_of(config))
    changes = {
        "model": kind,
        "vae": config.vae and kind,
        "data": str(few_pairs(folder)),
        "reward": stand_in(models, config.reward),
        "evaluation": {"rewards": list(dict.fromkeys(stand_in(models, name) for name in config.evaluation.rewards))},
    }
    if config.prompts not in PROMPTS:
        changes["prompts"] = str(few_prompts(folder))
    if config.pairs.resolution:
        small = small_pipeline(kind_of(config))
        side = min(32, family_of(small).image_size(small, None)[0])
        changes |= {"resolution": side, "pairs": {"resolution": side}}
    return resolve_config(str(path), merge(SIZES, changes), bfloat16=False)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem in ONE_OF_EACH else [pytest.mark.slow]) for path in RECIPES],
    ids=lambda path: path.stem,
)
def test_first_steps(path: Path, models: Path, tmp_path: Path) -> None:
    config = tiny_settings(path, models, tmp_path)
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    if config.gamma == 0:
        assert losses[0] == pytest.approx(math.log(2), abs=1e-5), "the policy is the reference"
    measured = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in measured] == [0, 2]
    for reward in config.evaluation.rewards:
        assert math.isfinite(measured[0][f"reward/{reward}"])
    weights = "network" if config.adapter == "full" else "adapter"
    assert any(file.suffix == ".safetensors" for file in (tmp_path / "run" / weights).iterdir())


class TestWhatIsNotThere:
    """One line that names it and the mend, before anything is loaded."""

    @pytest.mark.parametrize("recipe", ["spo-sd15", "spo-sdxl", "d3po-aesthetic", "lpo-sdxl"])
    def test_weights_that_the_hub_does_not_give(self, recipe: str) -> None:
        config = resolve_config(recipe)
        with pytest.raises(DataError, match=rf"reward {config.reward}: .*@FOLDER") as caught:
            build_evaluation(config)
        assert "\n" not in str(caught.value)

    def test_prompts_that_have_to_be_fetched(self) -> None:
        config = resolve_config("spo-sd15")
        with pytest.raises(DataError, match=r"prompt file data/spo-4k-prompts\.jsonl does not exist"):
            load_prompts(config.prompts)


def test_spo_warns_of_a_reward_without_time_steps(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_settings(FOLDER / "spo-sd15.yaml", models, tmp_path)
    config = config.model_copy(update={"reward": str(models / "clip"), "max_steps": 1})
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    warnings = [record.getMessage() for record in caplog.records if "knows no time step" in record.getMessage()]
    assert len(warnings) == 1
    assert str(models / "clip") in warnings[0]


class TestBase:
    """A recipe takes over the keys of its base."""

    def write(self, folder: Path, **recipes: Any) -> Path:
        for name, content in recipes.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return folder / "a.yaml"

    def test_own_keys_win_section_by_section(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        path = self.write(
            tmp_path,
            a={"base": "deep/b.yaml", "gamma": 1, "steps": {"min_gap": 0.1}},
            c={"beta": 5, "gamma": 2, "steps": {"candidates": 3, "min_gap": 0.2}},
        )
        self.write(tmp_path / "deep", b={"base": "../c.yaml", "beta": 7})
        assert read_recipe(path) == {"gamma": 1, "beta": 7, "steps": {"candidates": 3, "min_gap": 0.1}}

    def test_a_circle(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, a={"base": "b.yaml"}, b={"base": "a.yaml"})
        with pytest.raises(ConfigError, match=r"its base leads back to .*a\.yaml; remove the key `base`"):
            read_recipe(path)

    def test_a_base_that_is_missing_or_no_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"recipe .*b\.yaml does not exist"):
            read_recipe(self.write(tmp_path, a={"base": "b.yaml"}))
        with pytest.raises(ConfigError, match=r"base = 3 must be another recipe"):
            read_recipe(self.write(tmp_path, a={"base": 3}))


def test_a_reward_by_its_folder(models: Path) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (build_reward(str(models / "clip")).reward for _ in range(2))
    assert one is other, "the evaluation's is the trained one"
    for name in ("clip", "step-aware"):
        assert build_reward(str(models / name))(images, ["a circle", "a ring"]).shape == (2,)
