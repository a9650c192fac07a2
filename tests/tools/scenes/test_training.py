from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn

from seedpo.scenes.drawing import RADIUS, draw, sample_scenes
from seedpo.scenes.prompts import EVALUATION_PROMPTS, TRAINING_PROMPTS
from tests.scenes.drawings import seeded
from tools.scenes.autoencoder import PRACTICE_RADIUS, cosine_rate, draw_batch, reconstruction_loss
from tools.scenes.components import build_autoencoder, build_tokenizer
from tools.scenes.denoiser import Phase, encode_pool, update_average
from tools.scenes.pipeline import PRACTICED, build_autoencoder_part, build_denoiser_part, build_practice_part


class TestParts:
    def test_only_training_prompts_are_drawn(self) -> None:
        prompts, images = draw_batch(64, generator=seeded())
        assert len(prompts) == 64
        assert images.shape == (64, 3, 32, 32)
        assert set(prompts) <= set(TRAINING_PROMPTS)
        assert not set(prompts) & set(EVALUATION_PROMPTS)

    def test_other_sizes_can_be_drawn(self) -> None:
        prompts, images = draw_batch(16, generator=seeded(), radius=PRACTICE_RADIUS)
        same, larger = draw_batch(16, generator=seeded())
        assert prompts == same
        assert not torch.equal(images, larger)

    def test_each_image_is_of_its_prompt(self) -> None:
        generator = seeded()
        prompts, images = draw_batch(8, generator=generator)
        generator = seeded()
        torch.randint(len(TRAINING_PROMPTS), (8,), generator=generator)
        assert torch.equal(images, draw(sample_scenes(prompts, generator=generator)))

    def test_learning_rate(self) -> None:
        rates = [cosine_rate(step, 1000, peak=2.0, warmup=100) for step in range(1000)]
        assert rates[0] == pytest.approx(0.02, rel=1e-3)
        assert max(rates) == pytest.approx(2.0, rel=0.03)
        assert 95 <= rates.index(max(rates)) <= 105
        assert rates[500] == pytest.approx(2.0 * (0.01 + 0.99 / 2))
        assert rates[-1] == pytest.approx(0.02, rel=1e-2)

    def test_reconstruction_loss(self) -> None:
        images = torch.rand(2, 3, 8, 8, generator=seeded()) * 2 - 1
        assert reconstruction_loss(images, images).item() == 0
        shifted = reconstruction_loss(images + 0.1, images)  # no error of the edges
        assert shifted.item() == pytest.approx(0.1 + 2 * 0.01, abs=1e-5)

    def test_the_average_follows_the_weights(self) -> None:
        model, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            average.weight.zero_()
            model.weight.fill_(1.0)
        update_average(average, model, step=0)
        assert average.weight.item() == pytest.approx(0.9)
        for step in range(1, 5000):
            update_average(average, model, step=step)
        assert average.weight.item() == pytest.approx(1.0)
        with torch.no_grad():
            model.weight.fill_(2.0)
        update_average(average, model, step=10**6)
        assert average.weight.item() == pytest.approx(1.001)

    def test_the_pool_is_scaled_and_has_a_prompt_for_each_drawing(self, tmp_path: Path) -> None:
        autoencoder = build_autoencoder().eval().requires_grad_(False)
        autoencoder.register_to_config(scaling_factor=3.0)
        tokenizer = build_tokenizer(tmp_path)
        latents, tokens = encode_pool(
            autoencoder, tokenizer, size=256, radius=RADIUS, generator=seeded(), progress=False
        )
        assert latents.shape == (256, 8, 8, 8)
        assert tokens.shape == (256, 12)
        prompts, drawings = draw_batch(256, generator=seeded())
        wanted = autoencoder.encode(drawings[:4] * 2 - 1).latent_dist.mean * 3.0
        torch.testing.assert_close(latents[:4], wanted, rtol=1e-4, atol=1e-4)
        assert tokenizer.decode(tokens[5], skip_special_tokens=True).strip() == prompts[5]


BRIEF = Phase(radius=RADIUS, steps=2, horizon=2, peak=1e-3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline after two steps of each of its trainings."""
    folder = tmp_path_factory.mktemp("pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.scenes.denoiser.POOL_SIZE", 256)
        build_autoencoder_part(folder, steps=2, batch_size=4)
        build_practice_part(folder, phase=BRIEF, batch_size=4)
        build_denoiser_part(folder, phase=BRIEF, batch_size=4)
    return folder


class TestWhole:
    def test_a_pipeline_is_written(self, built: Path) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(built, use_safetensors=True, local_files_only=True)
        assert pipeline.unet.config.sample_size == 8
        image = pipeline("a large red star on a gray background", num_inference_steps=2, output_type="pt").images
        assert image.shape == (1, 3, 32, 32)
        assert math.isfinite(float(image.sum()))

    def test_latents_have_unit_deviation(self, built: Path) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(built, use_safetensors=True, local_files_only=True)
        _, drawings = draw_batch(256, generator=seeded(9), radius=PRACTICE_RADIUS)
        with torch.no_grad():
            latents = pipeline.vae.encode(drawings * 2 - 1).latent_dist.mean * pipeline.vae.config.scaling_factor
        assert float(latents.std()) == pytest.approx(1, rel=0.1)

    def test_large_parts_are_stored_in_half_precision(self, built: Path) -> None:
        for part in ("vae", "unet"):
            weights = load_file(built / part / "diffusion_pytorch_model.safetensors")
            assert {value.dtype for value in weights.values()} == {torch.float16}

    def test_the_second_phase_goes_on_from_the_first(self, built: Path) -> None:
        before = load_file(built / PRACTICED / "unet" / "diffusion_pytorch_model.safetensors")
        after = load_file(built / "unet" / "diffusion_pytorch_model.safetensors")
        moved = {name: float((after[name].float() - value.float()).abs().max()) for name, value in before.items()}
        assert 0 < max(moved.values()) < 0.05
