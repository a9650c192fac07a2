"""Stable Diffusion 3, 3.5 and FLUX.1 as the pipelines' own calls compute them, step by step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from seedpo.core.sampling import Sampler, Sampling
from seedpo.errors import ConfigError, DataError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.loading import load_pipeline
from seedpo.models.pipelines.flux import FLUX
from seedpo.models.pipelines.parts import packed, unpacked
from seedpo.models.pipelines.stable_diffusion_3 import STABLE_DIFFUSION_3
from seedpo.models.policy import PipelinePolicy
from tests.models.flow_pipelines import DYNAMIC, FLUX_KINDS, SD3_KINDS, flow_pipeline
from tests.models.tiny import PROMPTS, seeded

KINDS = (*SD3_KINDS, *FLUX_KINDS)
SIZE, LENGTH, STEPS = (16, 24), 6, 4
"""Not square, so that rows and columns cannot be mistaken; texts of six tokens."""


def denoiser(kind: str, **scheduler: Any) -> PipelineDenoiser:
    return PipelineDenoiser(flow_pipeline(kind, **scheduler), resolution=SIZE, max_sequence_length=LENGTH)


def first_latents(model: PipelineDenoiser, seed: int = 0) -> Tensor:
    return torch.randn(len(PROMPTS), *model.latent_shape, generator=seeded(seed))


def called(pipeline: Any, latents: Tensor, *, scale: float) -> tuple[list[Tensor], Tensor]:
    """The latents after each step of the pipeline's own call, unpacked, and its images."""
    seen: list[Tensor] = []

    def keep(_: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"])
        return tensors

    is_flux = type(pipeline).__name__ == "FluxPipeline"
    # FLUX takes the scale of two forwards under another name, and its usual one is an input of the network.
    guidance = {"true_cfg_scale": scale, "negative_prompt": [""] * 3} if is_flux else {"guidance_scale": scale}
    images: Tensor = pipeline(
        list(PROMPTS),
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=STEPS,
        max_sequence_length=LENGTH,
        latents=packed(latents) if is_flux else latents,
        callback_on_step_end=keep,
        output_type="pt",
        **guidance,
    ).images
    return [unpacked(step, *latents.shape[-2:]) if is_flux else step for step in seen], images


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_that_of_the_pipelines_own_call(kind: str, scale: float) -> None:
    model = denoiser(kind)
    latents = first_latents(model)
    steps, images = called(flow_pipeline(kind), latents, scale=scale)
    sampler = Sampler(model, Sampling(num_inference_steps=STEPS, guidance_scale=scale, eta=0.0))
    positive, negative = model.encode_prompts(PROMPTS), model.encode_prompts([""] * len(PROMPTS))
    path = sampler.trajectory(latents, positive, negative).latents
    torch.testing.assert_close(path, torch.stack([latents, *steps], 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.decode(sampler.sample(latents, positive, negative)), images, rtol=0, atol=1e-5)
    assert (images - model.decode(latents)).abs().max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_embedded_as_by_the_pipeline(kind: str) -> None:
    model = denoiser(kind)
    prompts = ["a red ring", "", "a large blue star on a black background and more words than fit"]
    embedded = model.encode_prompts(prompts)
    pipeline = flow_pipeline(kind)
    if kind in FLUX_KINDS:
        embeds, pooled, _ = pipeline.encode_prompt(prompts, max_sequence_length=LENGTH)
    else:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=LENGTH
        )
    # States are of order 1; kernels of other processors differ by 1e-6 of it.
    torch.testing.assert_close(embedded.prompt_embeds, embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embedded.pooled_prompt_embeds, pooled, rtol=1e-5, atol=1e-5)
    assert embeds.shape[1] == LENGTH + (0 if kind in FLUX_KINDS else pipeline.tokenizer.model_max_length)


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [("sd3", {}), ("sd3", DYNAMIC), ("flux-dev", {}), ("flux-schnell", {}), ("flux-dev", {"shift_terminal": 0.02})],
)
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (256, 128)])
def test_levels_are_those_of_the_pipelines_scheduler(kind: str, scheduler: dict[str, Any], size: Any) -> None:
    """The pipeline's own call sets them; its network is not asked."""
    pipeline = flow_pipeline(kind, **scheduler)
    model = PipelineDenoiser(flow_pipeline(kind, **scheduler), resolution=size)
    for count in (4, 28) if "shift_terminal" in scheduler else (1, 4, 28):  # diffusers divides 0 by 0 for one step
        pipeline.transformer.forward = lambda hidden_states, **_: (torch.zeros_like(hidden_states),)
        pipeline("a red ring", height=size[0], width=size[1], num_inference_steps=count, output_type="latent")
        sigmas, following = model.process.timesteps(count)
        assert torch.equal(torch.cat([sigmas, following[-1:]]), pipeline.scheduler.sigmas)


def test_the_shift_of_densities_is_that_of_the_image_size() -> None:
    """FLUX: exp(0.5) at 256 tokens and exp(1.15) at 4096; SD3: 3 at every size."""
    for side, expected in ((64, 0.5), (256, 1.15)):
        process: Any = FLUX.process(flow_pipeline("flux-dev"), (side, side))
        assert process.shift == pytest.approx(torch.tensor(expected).exp().item())
    static: Any = STABLE_DIFFUSION_3.process(flow_pipeline("sd3"), (64, 64))
    assert static.shift == 3.0
    unshifted: Any = FLUX.process(flow_pipeline("flux-schnell"), (64, 64))
    assert unshifted.shift == 1.0


def test_guidance_is_an_input_of_flux_dev() -> None:
    pipeline = flow_pipeline("flux-dev")
    predictions = []
    for value in (None, 3.5, 2.0):
        model = PipelineDenoiser(pipeline, resolution=SIZE, max_sequence_length=LENGTH, embedded_guidance=value)
        latents = first_latents(model)
        predictions.append(model.predict(latents, torch.full((3,), 0.7), model.encode_prompts(PROMPTS)))
    assert torch.equal(predictions[0], predictions[1])
    assert not torch.allclose(predictions[0], predictions[2], atol=1e-4)
    for kind in ("sd3", "flux-schnell"):
        with pytest.raises(ConfigError, match="embedded_guidance"):
            PipelineDenoiser(flow_pipeline(kind), resolution=SIZE, embedded_guidance=2.0).encode_prompts(["a"])


@pytest.mark.parametrize("kind", ["sd3", "sd3-bare", "flux-dev"])
def test_prompts_in_a_batch_are_rows(kind: str) -> None:
    model = denoiser(kind)
    together, alone = model.encode_prompts(PROMPTS), model.encode_prompts(PROMPTS[1:2])
    latents = first_latents(model)
    whole = model.predict(latents, torch.tensor([0.2, 0.6, 0.9]), together)
    part = model.predict(latents[1:2], torch.tensor([0.6]), alone)
    torch.testing.assert_close(whole[1:2], part, rtol=1e-5, atol=1e-5)


class TestFolders:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_folder_is_the_pipeline_that_was_saved(self, kind: str, tmp_path: Path) -> None:
        flow_pipeline(kind).save_pretrained(tmp_path)
        loaded = PipelineDenoiser(load_pipeline(tmp_path), resolution=SIZE, max_sequence_length=LENGTH)
        expected = denoiser(kind)
        inputs = first_latents(expected), torch.full((3,), 0.7)
        torch.testing.assert_close(
            loaded.predict(*inputs, loaded.encode_prompts(PROMPTS)),
            expected.predict(*inputs, expected.encode_prompts(PROMPTS)),
            rtol=1e-5,
            atol=1e-5,
        )

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", ["sd35", "flux-dev"])
    def test_half_precision_is_read_without_a_wide_copy(
        self, kind: str, half: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flow_pipeline(kind).to(dtype=torch.bfloat16).save_pretrained(tmp_path)
        pipeline = load_pipeline(tmp_path, half=half)
        last = "text_encoder_3" if kind == "sd35" else "text_encoder_2"
        formats = {
            name: {value.dtype for value in getattr(pipeline, name).parameters()}
            for name in pipeline.components
            if hasattr(getattr(pipeline, name), "parameters")
        }
        assert formats["transformer"] == formats["text_encoder"] == {torch.bfloat16}
        assert formats["vae"] == {torch.float32}
        # transformers keeps the layers of a T5 that overflow in float16 wide.
        assert formats[last] == ({half} if half == torch.bfloat16 else {torch.float16, torch.float32})
        assert load_pipeline(tmp_path, half=half, wide_network=True).transformer.dtype == torch.float32
        precision: Any = {torch.bfloat16: "bf16", torch.float16: "fp16"}[half]
        narrow, wide = (
            PipelineDenoiser(each, resolution=SIZE, max_sequence_length=LENGTH, mixed_precision=precision)
            for each in (pipeline, load_pipeline(tmp_path))
        )
        inputs = first_latents(wide), torch.full((3,), 0.7), wide.encode_prompts(PROMPTS)
        assert torch.equal(narrow.predict(*inputs), wide.predict(*inputs))
        torch.testing.assert_close(
            narrow.encode_prompts(PROMPTS).prompt_embeds, inputs[2].prompt_embeds, rtol=0.05, atol=0.1
        )

    def test_a_part_that_the_family_needs(self, tmp_path: Path) -> None:
        flow_pipeline("flux-dev").save_pretrained(tmp_path)
        shutil.rmtree(tmp_path / "text_encoder_2")
        with pytest.raises(DataError, match="has no text_encoder_2"):
            load_pipeline(tmp_path)

    def test_unknown_families_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "HunyuanDiTPipeline"}))
        with pytest.raises(DataError, match=r"HunyuanDiTPipeline.* FluxPipeline.*What is missing"):
            load_pipeline(tmp_path)


class TestRefusals:
    @pytest.mark.parametrize("kind", ["sd3", "flux-dev"])
    def test_sizes_that_tokens_do_not_divide(self, kind: str) -> None:
        for resolution in (18, (16, 18), 0):
            with pytest.raises(ConfigError, match="must be a multiple of 4"):
                PipelineDenoiser(flow_pipeline(kind), resolution=resolution)

    @pytest.mark.parametrize("kind", ["sd3", "flux-dev"])
    def test_a_scheduler_of_another_kind(self, kind: str) -> None:
        pipeline = flow_pipeline(kind)
        pipeline.scheduler = DPMSolverMultistepScheduler()
        with pytest.raises(DataError, match="DPMSolverMultistepScheduler"):
            PipelineDenoiser(pipeline, resolution=16)
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
        with pytest.raises(DataError, match="invert_sigmas"):
            PipelineDenoiser(pipeline, resolution=16)

    def test_students_of_few_steps_draw_and_are_not_trained(self, tmp_path: Path) -> None:
        flow_pipeline("sd35").save_pretrained(tmp_path / "stable-diffusion-3.5-large-turbo")
        flow_pipeline("sd35").save_pretrained(tmp_path / "turbot")
        turbo = load_pipeline(tmp_path / "stable-diffusion-3.5-large-turbo")
        for pipeline in (turbo, flow_pipeline("flux-schnell")):
            with pytest.raises(ConfigError, match="must not be trained"):
                PipelinePolicy(pipeline, resolution=16)
            PipelineDenoiser(pipeline, resolution=16)
        PipelinePolicy(load_pipeline(tmp_path / "turbot"), resolution=16)

    def test_guidance_of_two_forwards_on_flux(self) -> None:
        assert "embedded_guidance" in str(FLUX.unguided(flow_pipeline("flux-dev")))
        assert FLUX.unguided(flow_pipeline("flux-schnell"))
