"""Latent reward models in training: how pairs are seen, what is compared, and what is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seedpo.core.types import Conditioning, ImagePairs
from seedpo.errors import ConfigError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.rewards.latent_training import LatentPreferenceModel, NoisyLatents, latent_start
from seedpo.rewards.lrm import load_latent_scorer
from seedpo.rewards.preference_objective import pair_losses
from seedpo.rewards.previews import SeenPairs
from tests.models.flow_pipelines import flow_pipeline
from tests.models.published import KINDS, pipeline_of

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background"]


def denoiser_of(kind: str) -> PipelineDenoiser:
    return PipelineDenoiser(pipeline_of(kind))


def pairs(count: int = 2) -> ImagePairs:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, count, 4, 8, 8, generator=generator)
    return ImagePairs(
        chosen_latents=chosen, rejected_latents=rejected, conditioning=Conditioning(), pair=torch.arange(count)
    )


def seen(timestep: int = 501) -> SeenPairs:
    return NoisyLatents(denoiser_of("sd15"), timesteps=(0,)).at(pairs(), timestep, seed=0)


class TestNoisyLatents:
    def test_each_image_has_noise_of_its_own(self) -> None:
        process = denoiser_of("sd15").process
        some, times = seen(), torch.full((2,), 501)
        noises = [
            (some.pixels[:, side] - process.noisy(clean, torch.zeros_like(clean), times))
            for side, clean in enumerate([pairs().chosen_latents, pairs().rejected_latents])
        ]
        spread = float((1 - process.alphas_cumprod[501]).sqrt())
        assert float(noises[0].std()) == pytest.approx(spread, rel=0.15)
        assert float((noises[0] - noises[1]).std()) == pytest.approx(2**0.5 * spread, rel=0.15)

    def test_clean_ones_stay_as_they_are(self) -> None:
        assert torch.equal(seen(0).pixels[:, 1], pairs().rejected_latents)

    def test_draws_are_those_of_the_generator_and_never_clean(self) -> None:
        views = NoisyLatents(denoiser_of("sd15"), timesteps=(0,))
        one, same, other = (views.drawn(pairs(), generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert torch.equal(one.pixels, same.pixels)
        assert not torch.equal(one.pixels, other.pixels)
        many = views.drawn(pairs(500), generator=torch.Generator().manual_seed(0)).timestep
        assert many is not None
        assert (int(many.min()) >= 1, int(many.max()) < 1000) == (True, True)


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> LatentPreferenceModel:
    return latent_start(denoiser_of(request.param), seed=0)


def test_scores_are_those_of_the_reward_that_is_written(model: LatentPreferenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    scorer = load_latent_scorer(tmp_path / "model")
    some = seen()
    with torch.no_grad():
        logits = model.compare(some, PROMPTS).logits
    assert some.timestep is not None
    for side in range(2):
        scores = scorer.score_latents(some.pixels[:, side], PROMPTS, timestep=some.timestep)
        torch.testing.assert_close(scores, logits[:, side], rtol=1e-4, atol=1e-4)
    assert scorer.misfit(denoiser_of("sdxl" if model.model.text_encoder_2 is not None else "sd15")) is None
    assert torch.isfinite(scorer(torch.rand(2, 3, 16, 16), PROMPTS)).all()


def test_every_weight_learns_and_the_diffusion_model_stays(model: LatentPreferenceModel) -> None:
    before = {name: value.clone() for name, value in model.pipeline.unet.state_dict().items()}
    comparison = model.compare(seen(), PROMPTS)
    pair_losses(comparison, torch.ones(2)).sum().backward()
    weights = model.trainable_parameters()
    still = [name for name, value in weights.items() if value.grad is None or not value.grad.any()]
    # What no feature comes from: the last layer of a text encoder whose states before it are read.
    assert all("text_encoder" in name for name in still)
    assert {"unet.conv_in.weight", "visual_projection.weight", "logit_scale"} <= set(weights) - set(still)
    assert all(torch.equal(value, before[name]) for name, value in model.pipeline.unet.state_dict().items())


def test_read_back_into_the_very_tensors(model: LatentPreferenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    saved = {name: value.detach().clone() for name, value in model.trainable_parameters().items()}
    tensors = list(model.trainable_parameters().values())
    with torch.no_grad():
        for value in tensors:
            value.add_(1.0)
    model.load(tmp_path / "model")
    again = model.trainable_parameters()
    assert all(one is other for one, other in zip(tensors, again.values(), strict=True))
    assert all(torch.equal(value, saved[name]) for name, value in again.items())


def test_the_start_depends_on_the_seed_alone() -> None:
    one, same, other = (latent_start(denoiser_of("sd15"), seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(one.visual_projection.weight, same.visual_projection.weight)
    assert not torch.equal(one.visual_projection.weight, other.visual_projection.weight)


def test_another_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="latent = true"):
        latent_start(PipelineDenoiser(flow_pipeline("sd3")), seed=0)
