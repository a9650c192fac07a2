"""Runs of the embedded model that train its text encoder as well, from the first step to what is published."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from seedpo.core.sampling import Sampler, Sampling
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.targets import ModelOptions, load_target, parse_target
from seedpo.models.loading import load_pipeline
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.trained import TrainedPipeline
from seedpo.publishing.export import export_run
from seedpo.scenes.assets import PIPELINE
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.models.published import drawn_by_diffusers
from tests.models.tiny import PROMPTS, seeded
from tests.small_runs import metrics, small
from tests.training.toys import cpu_accelerator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    keys = small(folder, max_steps=4, learning_rate=0.01, lora_text_encoder=True, lora_alpha=8.0)
    config = resolve_config("diffusion-dpo", keys)
    train(config, folder / "run", accelerator=cpu_accelerator(config), progress=False)
    return folder / "run"


def drawn(denoiser: Any) -> torch.Tensor:
    sampler = Sampler(denoiser, Sampling(num_inference_steps=4, guidance_scale=3.0))
    latents = torch.randn(len(PROMPTS), *denoiser.latent_shape, generator=seeded(2))
    clean = sampler.sample(latents, denoiser.encode_prompts(PROMPTS), denoiser.encode_prompts([""] * len(PROMPTS)))
    images: torch.Tensor = denoiser.decode(clean)
    return images


def drawn_by(pipeline: Any) -> torch.Tensor:
    config = pipeline.unet.config
    latents = torch.randn(len(PROMPTS), config.in_channels, config.sample_size, config.sample_size, generator=seeded(2))
    pipeline.set_progress_bar_config(disable=True)
    return drawn_by_diffusers(pipeline, latents)


def test_starts_at_the_reference_and_learns_in_both(run: Path) -> None:
    first = next(line for line in metrics(run) if "loss" in line)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    second_factors = {
        name: value.abs().max() for name, value in load_file(run / "adapter" / LORA_FILE).items() if ".up." in name
    }
    assert {name.partition(".")[0] for name in second_factors} == {"unet", "text_encoder"}
    assert min(second_factors.values()) > 0


def test_every_way_to_draw_gives_the_same_images(run: Path, tmp_path: Path) -> None:
    trained, base = (load_target(parse_target(f"{run}{at}", ModelOptions())) for at in ("", "@base"))
    images = drawn(trained)
    assert (images - drawn(base)).abs().max() > 0.01
    plain, web = DiffusionPipeline.from_pretrained(PIPELINE), load_pipeline(PIPELINE)
    plain.load_lora_weights(run / "adapter")
    file = export_run(run, tmp_path / "web.safetensors", format="kohya")
    web.load_lora_weights(file.parent, weight_name=file.name)
    merged = load_pipeline(export_run(run, tmp_path / "merged", format="pipeline"))
    for pipeline in (plain, web, merged):
        torch.testing.assert_close(drawn_by(pipeline), images, rtol=0, atol=1e-3)


def test_strength_scales_all_parts(run: Path) -> None:
    plain = load_target(parse_target(str(run), ModelOptions()))
    target = parse_target(str(run), ModelOptions()).under(SamplingControl(strength=0.0))
    denoiser, base = load_target(target), load_target(parse_target(f"{run}@base", ModelOptions()))
    assert isinstance(denoiser, TrainedPipeline)
    whole = drawn(denoiser)
    torch.testing.assert_close(whole, drawn(plain), rtol=0, atol=1e-5)
    for before_training in (denoiser.at_strength(0.0), denoiser.initial()):
        with before_training:
            torch.testing.assert_close(drawn(denoiser), drawn(base), rtol=0, atol=1e-5)
            embeds = [some.encode_prompts(PROMPTS).tensors()["prompt_embeds"] for some in (denoiser, base)]
            torch.testing.assert_close(*embeds)
    assert torch.equal(drawn(denoiser), whole)
