"""A model family enters with one record and one row: nothing else names a pipeline class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import ImagePairs
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.models.loading import add_lora
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.pipeline_classes import FAMILIES
from seedpo.models.policy import PipelinePolicy
from seedpo.registry import Entry, Registry
from tests.models.flow_family import flow_pipeline
from tests.models.tiny import PROMPTS, move, seeded

BOTH = pytest.mark.parametrize("adapter", ["lora", "full"])


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(name="StableDiffusion3Pipeline", target="tests.models.flow_family:FAMILY", summary="a test's")
    others = (known for known in FAMILIES.entries if known.name != entry.name)
    monkeypatch.setattr("seedpo.models.families.FAMILIES", Registry(FAMILIES.kind, (*others, entry)))


def inputs(policy: PipelinePolicy) -> Any:
    latents = torch.randn(3, *policy.latent_shape, generator=seeded())
    return latents, torch.tensor([0.1, 0.5, 1.0]), policy.encode_prompts(PROMPTS)


def test_images_become_packed_latents_and_back() -> None:
    policy = PipelinePolicy(flow_pipeline())
    images = torch.rand(2, 3, 16, 16, generator=seeded())
    latents = policy.encode_images(images)
    assert latents.shape == (2, *policy.latent_shape) == (2, 64, 4)
    vae = policy.pipeline.vae
    with torch.no_grad():
        plain = (vae.encode(2 * images - 1).latent_dist.mean - 0.1) * vae.config.scaling_factor
    torch.testing.assert_close(latents.transpose(1, 2).view(2, 4, 8, 8), plain)
    assert policy.decode(latents).shape == images.shape


@BOTH
def test_a_preference_is_learnt(adapter: Literal["lora", "full"]) -> None:
    policy = PipelinePolicy(flow_pipeline(), adapter=adapter)
    chosen, rejected = (torch.randn(3, *policy.latent_shape, generator=seeded(seed)) for seed in (1, 2))
    pairs = ImagePairs(chosen_latents=chosen, rejected_latents=rejected, conditioning=policy.encode_prompts(PROMPTS))
    method = NoiseDPO(policy_weight=20.0, reference_weight=20.0)
    optimizer = torch.optim.AdamW(policy.trainable_parameters().values(), lr=0.01)
    losses = []
    for _ in range(4):
        loss = method.loss(policy, pairs, generator=seeded()).losses.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(2.0).log().item())
    assert losses[-1] < losses[0] - 0.01


def test_images_are_drawn() -> None:
    policy = PipelinePolicy(flow_pipeline())
    sampler = Sampler(policy, Sampling(num_inference_steps=3, guidance_scale=2.0))
    prompts, negative = policy.encode_prompts(PROMPTS), policy.encode_prompts([""] * 3)
    images = policy.decode(sampler.sample(inputs(policy)[0], prompts, negative))
    assert images.shape == (3, 3, 16, 16)
    assert images.isfinite().all()


@BOTH
def test_weights_are_saved_for_diffusers_and_read_again(tmp_path: Path, adapter: Literal["lora", "full"]) -> None:
    policy = move(PipelinePolicy(flow_pipeline(), adapter=adapter))
    policy.save(tmp_path)
    again = PipelinePolicy(flow_pipeline(), adapter=adapter, seed=1)
    again.load(tmp_path)
    prediction = policy.predict(*inputs(policy))
    assert torch.equal(again.predict(*inputs(again)), prediction)
    if adapter == "lora":
        plain = flow_pipeline()
        add_lora(plain, tmp_path / LORA_FILE)
        drawn = PipelinePolicy(plain, adapter="full").predict(*inputs(policy))
        torch.testing.assert_close(drawn, prediction, rtol=1e-5, atol=1e-6)
