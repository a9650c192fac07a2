"""Half precision: what is rounded, what is not, and that reference and policy are rounded alike."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn

from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import vae_dtype
from tests.models.published import drawn_by_policy, pipeline_of, some_latents
from tests.models.tiny import move, network_inputs, on_reference, train_steps

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
EVERY_ADAPTER = pytest.mark.parametrize("adapter", ["lora", "full"])
EVERY_HALF = pytest.mark.parametrize("mixed_precision", list(HALF))


def dtypes(network: nn.Module, kinds: tuple[type, ...], *, trained: bool) -> set[torch.dtype]:
    return {
        parameter.dtype
        for layer in network.modules()
        if isinstance(layer, kinds)
        for parameter in layer.parameters(recurse=False)
        if parameter.requires_grad == trained
    }


def autocast_alone(unet: Any, inputs: Any, dtype: torch.dtype) -> Tensor:
    """What a float32 network gives under autocast."""
    latents, timestep, conditioning = inputs
    added = {"text_embeds": conditioning.pooled_prompt_embeds, "time_ids": conditioning.time_ids}
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        prediction: Tensor = unet(
            latents, timestep, encoder_hidden_states=conditioning.prompt_embeds, added_cond_kwargs=added
        ).sample
    return prediction.float()


@EVERY_HALF
@EVERY_ADAPTER
def test_rounded_storage_changes_no_bit(adapter: Any, mixed_precision: Any) -> None:
    """Policy, reference and a float32 network under autocast are one at the start; the reference stays."""
    unet = deepcopy(pipeline_of("sdxl").unet).eval()
    policy = PipelinePolicy(pipeline_of("sdxl"), adapter=adapter, mixed_precision=mixed_precision)
    inputs = network_inputs(policy)
    expected = autocast_alone(unet, inputs, HALF[mixed_precision])
    assert torch.equal(policy.predict(*inputs), expected)
    assert torch.equal(on_reference(policy, *inputs), expected)
    move(policy)
    assert torch.equal(on_reference(policy, *inputs), expected)
    assert (policy.predict(*inputs) - expected).abs().max() > 1e-4


@EVERY_HALF
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_close_to_float32_and_finite(kind: str, mixed_precision: Any) -> None:
    half, whole = (
        move(PipelinePolicy(pipeline_of(kind), mixed_precision=precision)) for precision in (mixed_precision, "no")
    )
    latents = some_latents(half)
    for guidance_scale in (1.0, 5.0):
        images = drawn_by_policy(half, latents, guidance_scale=guidance_scale)
        expected = drawn_by_policy(whole, latents, guidance_scale=guidance_scale)
        assert images.dtype == torch.float32
        assert (images - expected).abs().mean() < {"bf16": 0.02, "fp16": 0.003}[mixed_precision]
    embeds, expected = (policy.encode_prompts(["a large red ring"]).prompt_embeds for policy in (half, whole))
    assert embeds.dtype == torch.float32
    assert 0 < (embeds - expected).abs().max() < 0.05 * expected.abs().max()


@EVERY_HALF
def test_what_is_stored_rounded(mixed_precision: Any) -> None:
    policy = PipelinePolicy(pipeline_of("sdxl"), mixed_precision=mixed_precision)
    matrices, norms = (nn.Linear, nn.Conv2d), (nn.GroupNorm, nn.LayerNorm)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        network = getattr(policy.pipeline, part)
        assert dtypes(network, matrices, trained=False) == {HALF[mixed_precision]}
        assert dtypes(network, norms, trained=False) == {torch.float32}
    assert {value.dtype for value in policy.trainable_parameters().values()} == {torch.float32}
    full = PipelinePolicy(pipeline_of("sdxl"), adapter="full", mixed_precision=mixed_precision)
    assert {value.dtype for value in full.trainable_parameters().values()} == {torch.float32}
    assert full.adapter.frozen is not None
    assert dtypes(full.adapter.frozen, matrices, trained=False) == {HALF[mixed_precision]}


@EVERY_ADAPTER
def test_gradients_are_float32_and_finite(adapter: Any) -> None:
    policy = PipelinePolicy(pipeline_of("sdxl"), adapter=adapter, mixed_precision="bf16")
    prediction = policy.predict(*network_inputs(policy))
    assert prediction.dtype == torch.float32
    prediction.square().mean().backward()
    for value in policy.trainable_parameters().values():
        assert value.grad is not None
        assert value.grad.dtype == torch.float32
        assert value.grad.isfinite().all()
    train_steps(policy)
    assert policy.predict(*network_inputs(policy)).isfinite().all()


@pytest.mark.parametrize("checkpointing", [True, False])
def test_autocast_of_the_accelerator_around_it_changes_nothing(checkpointing: bool) -> None:
    results = []
    for wrapped in (False, True):
        pipeline = pipeline_of("sd15")
        policy = move(PipelinePolicy(pipeline, mixed_precision="bf16", gradient_checkpointing=checkpointing), scale=0.3)
        if wrapped:
            unet = pipeline.unet
            unet.forward = convert_outputs_to_fp32(torch.autocast("cpu", dtype=torch.bfloat16)(unet.forward))
        prediction = policy.predict(*network_inputs(policy))
        prediction.square().mean().backward()
        results.append([prediction, *(value.grad for value in policy.trainable_parameters().values())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_adapter_begins_alike_in_every_precision() -> None:
    weights = [
        PipelinePolicy(pipeline_of("sd15"), mixed_precision=precision).trainable_parameters()
        for precision in ("no", "bf16", "fp16")
    ]
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items())


def test_the_autoencoder_is_halved_only_where_it_says_that_it_is_safe() -> None:
    vae = pipeline_of("sdxl").vae
    assert vae.config.force_upcast, "diffusers' default"
    safe = deepcopy(vae)
    safe.register_to_config(force_upcast=False)
    for precision in HALF:
        assert vae_dtype(vae, precision) == torch.float32
        assert vae_dtype(safe, precision) == torch.float16
    assert vae_dtype(safe, "no") == torch.float32


def test_a_safe_autoencoder_works_in_half_precision() -> None:
    pipeline = pipeline_of("sdxl")
    pipeline.vae.register_to_config(force_upcast=False)
    half, whole = PipelinePolicy(pipeline, mixed_precision="bf16"), PipelinePolicy(pipeline_of("sdxl"))
    assert pipeline.vae.dtype == torch.float16
    latents = some_latents(half)
    images = half.decode(latents)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, whole.decode(latents), rtol=0, atol=0.01)
    encoded = half.encode_images(images)
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded, whole.encode_images(images), rtol=0, atol=0.01)
