from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seedpo.errors import ConfigError, DataError
from seedpo.models.loading import load_pipeline
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from seedpo.planning.configurations import PUBLISHED, autoencoder_configuration, model_configuration, published
from seedpo.planning.networks import build_policy
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tests.models.test_lora import FORMS
from tests.planning.real_runs import model_folder

WEIGHTS = {
    "stable-diffusion-v1-5": (859_520_964, 123_060_480),
    "stable-diffusion-2-1": (865_910_724, 340_387_840),
    "stable-diffusion-2-1-base": (865_910_724, 340_387_840),
    "stable-diffusion-xl-base-1.0": (2_567_463_684, 123_060_480 + 694_659_840),
}
"""Weights of the published UNets, and of the text encoders."""


def weights_of(network: torch.nn.Module | None) -> int:
    return 0 if network is None else sum(weight.numel() for weight in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTS)
def test_published_models_have_as_many_weights_as_are_published(name: str) -> None:
    repository = next(key for key, value in PUBLISHED.items() if value == name)
    config = build_config(RunConfig, {"model": repository})
    policy = build_policy(config, model_configuration(config))
    pipeline = policy.pipeline
    added = sum(weight.numel() for weight in policy.trainable_parameters().values())
    text = sum(weights_of(getattr(pipeline, part, None)) for part in ("text_encoder", "text_encoder_2"))
    assert (weights_of(pipeline.unet) - added, text) == WEIGHTS[name]
    assert weights_of(pipeline.vae) == 83_653_863


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_an_adapter_has_the_weights_of_the_real_one(form: LoraForm) -> None:
    keys = {"model": model_folder("sd15"), **{f"lora_{key}": value for key, value in vars(form).items()}}
    config = build_config(RunConfig, keys)
    planned = build_policy(config, model_configuration(config)).trainable_parameters()
    real = PipelinePolicy(load_pipeline(config.model), lora=form).trainable_parameters()
    assert all(value.is_meta for value in planned.values())
    assert [(name, value.shape) for name, value in planned.items()] == [(n, v.shape) for n, v in real.items()]


def test_stable_diffusion_2_1_predicts_velocities_and_its_base_noise() -> None:
    kinds = {name: published(name)["scheduler"]["prediction_type"] for name in WEIGHTS if "2-1" in name}
    assert kinds == {"stable-diffusion-2-1": "v_prediction", "stable-diffusion-2-1-base": "epsilon"}


def test_an_unknown_model_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"'nobody/nothing'.* --set model=FOLDER"):
        model_configuration(build_config(RunConfig, {"model": "nobody/nothing"}))


def test_a_folder_is_read_and_a_missing_file_named(tmp_path: Path) -> None:
    found = model_configuration(build_config(RunConfig, {"model": model_folder("sdxl")}))
    assert found.parts.keys() == {"unet", "vae", "text_encoder", "text_encoder_2", "scheduler"}
    config = build_config(RunConfig, {"model": str(tmp_path)})
    with pytest.raises(DataError, match=r"model_index\.json"):
        model_configuration(config)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"unet/config\.json"):
        model_configuration(config)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"unet/config\.json cannot be read"):
        model_configuration(config)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ("conditioner.embedders.1.model.x", "stable-diffusion-xl-base-1.0"),
        ("cond_stage_model.transformer.x", "stable-diffusion-v1-5"),
        ("cond_stage_model.model.x", "stable-diffusion-2-1"),
    ],
)
def test_a_single_file_is_told_by_its_tensors(tmp_path: Path, tensor: str, kind: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file({tensor: torch.zeros(1)}, file)
    found = model_configuration(build_config(RunConfig, {"model": str(file)}))
    assert found.origin == f"{file}, taken for a {kind}"
    assert {"_class_name": found.family.pipeline.__name__, **found.parts} == published(kind)


def test_a_single_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(ConfigError, match=r"single_file_config"):
        model_configuration(build_config(RunConfig, {"model": str(file)}))


def test_autoencoders() -> None:
    assert autoencoder_configuration("madebyollin/taesd", key="preview_vae")["_class_name"] == "AutoencoderTiny"
    with pytest.raises(ConfigError, match=r"preview_vae = 'nobody/nothing'"):
        autoencoder_configuration("nobody/nothing", key="preview_vae")
