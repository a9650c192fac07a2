"""Every flow family draws with its usual settings, with other samplers, and with LoRAs of other trainers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from seedpo.core.sampling import Sampling
from seedpo.errors import ConfigError
from seedpo.evaluation.sample import SampleRequest, usual_sampling
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import family_of
from seedpo.models.loading import add_lora
from seedpo.models.lora_file import PEFT_WEIGHTS
from seedpo.models.samplers import FLOW_SAMPLERS, denoise_with
from tests.models.flow_pipelines import flow_pipeline
from tests.models.language_pipelines import language_pipeline
from tests.models.qwen_pipelines import SIZE, pipeline_of
from tests.models.test_foreign_lora import ALPHA, RANK, added, dotted, factors, flattened
from tests.models.tiny import PROMPTS, seeded

BUILDERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("z-image", "z-image-turbo", "qwen-image"), pipeline_of),
    **dict.fromkeys(("flux2", "klein", "klein-distilled", "sana"), language_pipeline),
    **dict.fromkeys(("flux-dev", "flux-schnell"), flow_pipeline),
}

USUAL = {
    "z-image": (50, 6.0),
    "z-image-turbo": (50, 1.0),
    "qwen-image": (50, 4.0),
    "flux-dev": (28, 1.0),
    "flux-schnell": (28, 1.0),
    "flux2": (50, 1.0),
    "klein": (50, 4.0),
    "klein-distilled": (50, 1.0),
    "sana": (20, 4.5),
}
"""Steps and guidance in seedpo's convention."""

TRAINED = ("z-image", "qwen-image", "flux2", "sana", "flux-dev")


SIZES = {"z-image": SIZE, "z-image-turbo": SIZE, "qwen-image": SIZE, "flux-dev": 16, "flux-schnell": 16}
"""Of the images of pipelines whose own size is large, in pixels."""

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""The schedulers of diffusers hand tensors to numpy in an old way."""


def built(kind: str) -> Any:
    return BUILDERS[kind](kind)


@torch.no_grad()
def drawn(kind: str, pipeline: Any, sampler: str | None = None, *, steps: int = 2) -> Tensor:
    denoiser = PipelineDenoiser(pipeline, resolution=SIZES.get(kind))
    denoise = denoise_with(denoiser, sampler, Sampling(num_inference_steps=steps, guidance_scale=1.0))
    start = torch.randn(1, *denoiser.latent_shape, generator=seeded())
    prompts = denoiser.encode_prompts(PROMPTS[:1])
    return denoise(start, prompts, prompts, [seeded(1)])


@pytest.mark.parametrize("kind", USUAL)
def test_usual_steps_and_guidance(kind: str) -> None:
    usual = usual_sampling(SampleRequest(model="owner/name"), PipelineDenoiser(built(kind)))
    assert (usual.num_inference_steps, usual.guidance_scale) == USUAL[kind]


@pytest.mark.parametrize("kind", [kind for kind, (_, guidance) in USUAL.items() if guidance == 1])
def test_guidance_of_a_model_that_has_none_is_refused(kind: str) -> None:
    denoiser = PipelineDenoiser(built(kind))
    denoiser.require_guidance(1.0, key="--guidance")
    with pytest.raises(ConfigError, match="--guidance = 4 must be 1: "):
        denoiser.require_guidance(4.0, key="--guidance")


@pytest.mark.parametrize("kind", TRAINED)
def test_a_prompt_that_is_cut(kind: str) -> None:
    denoiser = PipelineDenoiser(built(kind))
    length = denoiser.prompt_form.length
    assert length is not None
    assert denoiser.unread_text(PROMPTS[0]) == ""
    assert "red" in denoiser.unread_text(" ".join(["red"] * (length + 3)))


@pytest.mark.parametrize("kind", ["flux-dev", "z-image", "qwen-image", "sana"])
def test_samplers_solve_one_equation(kind: str) -> None:
    """With few steps they differ, with many they end close to each other; untrained FLUX.2 needs hundreds."""
    pipeline = built(kind)
    assert family_of(pipeline).samplers == FLOW_SAMPLERS
    few, many = (drawn(kind, pipeline, "euler", steps=steps) for steps in (2, 60))
    for name in ("dpm++", "heun", "unipc"):
        end = drawn(kind, pipeline, name, steps=30)
        assert (end - many).std() < 0.3 * (few - many).std()


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("layout", ["peft", "ComfyUI", "flattened"])
def test_loras_of_other_trainers(tmp_path: Path, layout: str, kind: str) -> None:
    pipeline, by_hand = built(kind), built(kind)
    network = by_hand.transformer
    names = sorted(
        name
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(family_of(pipeline).adapter_layers["attention"])
    )
    layers = {
        name: factors((layer := network.get_submodule(name)).in_features, layer.out_features, row)
        for row, name in enumerate(names)
    }
    add_lora(pipeline, written(tmp_path, layout, layers, built(kind).transformer))
    by_hand = drawn(kind, added(by_hand, layers, alpha=ALPHA))
    torch.testing.assert_close(drawn(kind, pipeline), by_hand, atol=1e-4, rtol=1e-3)
    assert (by_hand - drawn(kind, built(kind))).abs().max() > 1e-3


def written(folder: Path, layout: str, layers: Mapping[str, tuple[Tensor, Tensor]], network: Any) -> Path:
    """The file that a trainer would write."""
    if layout == "peft":
        peft = get_peft_model(network, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(layers)))
        for name, (down, up) in layers.items():
            layer = peft.base_model.model.get_submodule(name)
            layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data = down.clone(), up.clone()
        peft.save_pretrained(folder)
        return folder / PEFT_WEIGHTS
    file = folder / "lora.safetensors"
    tensors = (
        flattened(layers, "lora_unet_") if layout == "flattened" else dotted(layers, "diffusion_model.", alpha=True)
    )
    save_file(tensors, file)
    return file


@pytest.mark.parametrize(
    ("kind", "original", "ours"),
    [
        ("flux-dev", "lora_unet_double_blocks_0_img_attn_qkv", "transformer_blocks.0.attn.to_{}"),
        ("flux2", "diffusion_model.double_blocks.0.img_attn.qkv", "transformer_blocks.0.attn.to_{}"),
        ("z-image", "diffusion_model.layers.0.attention.qkv", "layers.0.attention.to_{}"),
        ("z-image", "diffusion_model.context_refiner.0.attention.qkv", "context_refiner.0.attention.to_{}"),
    ],
)
def test_names_of_the_original_code(tmp_path: Path, kind: str, original: str, ours: str) -> None:
    """Queries, keys and values in one layer: sd-scripts on FLUX.1, ai-toolkit on FLUX.2, ComfyUI's Z-Image."""
    pipeline, by_hand = built(kind), built(kind)
    names = [ours.format(letter) for letter in "qkv"]
    shapes = [by_hand.transformer.get_submodule(name).weight.shape for name in names]
    down, up = factors(shapes[0][1], sum(shape[0] for shape in shapes), 0)
    write = flattened if original.startswith("lora_unet_") else dotted
    save_file(write({original: (down, up)}, ""), tmp_path / "lora.safetensors")
    add_lora(pipeline, tmp_path / "lora.safetensors")
    scale = ALPHA / RANK if write is flattened else 1.0
    with torch.no_grad():
        for name, change in zip(names, (scale * up @ down).split([shape[0] for shape in shapes]), strict=True):
            by_hand.transformer.get_submodule(name).weight += change
    torch.testing.assert_close(drawn(kind, pipeline), drawn(kind, by_hand), atol=1e-4, rtol=1e-3)
