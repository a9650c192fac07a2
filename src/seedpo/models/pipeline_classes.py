"""The pipeline classes that can be used, and what is known of each before one is loaded. Imports no model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seedpo.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A well-known model of a pipeline class.

    Attributes:
        name: on the hub.
        parameters: of the denoising network, in 10^9.
        text: its text encoders, and what their weights take in half precision.
        licence: of the weights; the publisher's own words count.
        recipes: of the package, for a LoRA on one GPU; the one with the least memory first.
    """

    name: str
    parameters: float
    text: str
    licence: str
    recipes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FamilyEntry(Entry):
    """A family's row: its target is the :class:`seedpo.models.families.Family`.

    Attributes:
        process: how its models turn noise into images.
        words: parts of names on the hub by which a model of the family is told, in lower case; the longest wins.
        untrained: which of its models cannot be trained, in words; empty: all can.
        checkpoints: well-known models.
    """

    process: Literal["diffusion", "flow matching"] = "flow matching"
    words: tuple[str, ...] = ()
    untrained: str = ""
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def recipes(self) -> tuple[str, ...]:
        """Recipes for its models, without repetition."""
        return tuple(dict.fromkeys(name for checkpoint in self.checkpoints for name in checkpoint.recipes))


_STABILITY = "Stability Community, gated"
_CLIP_AND_T5 = "two CLIPs 1.6 GB, T5 9.5 GB"

FAMILIES = Registry(
    "pipeline class",
    (
        FamilyEntry(
            name="StableDiffusionPipeline",
            target="seedpo.models.pipelines.stable_diffusion:STABLE_DIFFUSION",
            summary="Stable Diffusion 1.x and 2.x",
            process="diffusion",
            checkpoints=(
                Checkpoint(
                    name="stable-diffusion-v1-5/stable-diffusion-v1-5",
                    parameters=0.86,
                    text="CLIP 0.2 GB",
                    licence="OpenRAIL",
                    recipes=("lora-sd15-8gb", "lora-sd15-12gb"),
                ),
            ),
        ),
        FamilyEntry(
            name="StableDiffusionXLPipeline",
            target="seedpo.models.pipelines.stable_diffusion:STABLE_DIFFUSION_XL",
            summary="Stable Diffusion XL",
            process="diffusion",
            words=("xl",),
            checkpoints=(
                Checkpoint(
                    name="stabilityai/stable-diffusion-xl-base-1.0",
                    parameters=2.57,
                    text="two CLIPs 1.6 GB",
                    licence="OpenRAIL",
                    recipes=("lora-sdxl-16gb", "lora-sdxl-24gb"),
                ),
            ),
        ),
        FamilyEntry(
            name="StableDiffusion3Pipeline",
            target="seedpo.models.pipelines.stable_diffusion_3:STABLE_DIFFUSION_3",
            summary="Stable Diffusion 3 and 3.5",
            words=("stable-diffusion-3", "sd3"),
            untrained="the turbo models, which draw in four steps",
            checkpoints=(
                Checkpoint(
                    name="stabilityai/stable-diffusion-3.5-medium",
                    parameters=2.24,
                    text=_CLIP_AND_T5,
                    licence=_STABILITY,
                    recipes=("lora-sd35-24gb",),
                ),
                Checkpoint(
                    name="stabilityai/stable-diffusion-3.5-large",
                    parameters=8.06,
                    text=_CLIP_AND_T5,
                    licence=_STABILITY,
                    recipes=("lora-sd35-80gb",),
                ),
                Checkpoint(
                    name="stabilityai/stable-diffusion-3-medium-diffusers",
                    parameters=2.03,
                    text=_CLIP_AND_T5,
                    licence=_STABILITY,
                ),
            ),
        ),
        FamilyEntry(
            name="FluxPipeline",
            target="seedpo.models.pipelines.flux:FLUX",
            summary="FLUX.1",
            words=("flux.1", "flux1", "flux-1", "flux"),
            untrained="FLUX.1-schnell, which draws in four steps",
            checkpoints=(
                Checkpoint(
                    name="black-forest-labs/FLUX.1-dev",
                    parameters=11.9,
                    text="CLIP 0.2 GB, T5 9.5 GB",
                    licence="non-commercial",
                    recipes=("lora-flux-24gb", "lora-flux-80gb"),
                ),
            ),
        ),
        FamilyEntry(
            name="Flux2Pipeline",
            target="seedpo.models.pipelines.flux_2:FLUX_2",
            summary="FLUX.2 dev",
            words=("flux.2", "flux2"),
            checkpoints=(
                Checkpoint(
                    name="black-forest-labs/FLUX.2-dev",
                    parameters=32.2,
                    text="Mistral 3 48 GB",
                    licence="FLUX non-commercial, gated",
                    recipes=("lora-flux2-80gb",),
                ),
            ),
        ),
        FamilyEntry(
            name="Flux2KleinPipeline",
            target="seedpo.models.pipelines.flux_2:FLUX_2_KLEIN",
            summary="FLUX.2 klein",
            words=("flux.2-klein", "flux2-klein"),
            untrained="those that are distilled (no -base in their name)",
            checkpoints=(
                Checkpoint(
                    name="black-forest-labs/FLUX.2-klein-base-4B",
                    parameters=3.88,
                    text="Qwen 3 8 GB",
                    licence="Apache-2.0",
                    recipes=("lora-klein-24gb",),
                ),
                Checkpoint(
                    name="black-forest-labs/FLUX.2-klein-base-9B",
                    parameters=9.08,
                    text="Qwen 3 16 GB",
                    licence="FLUX non-commercial, gated",
                    recipes=("lora-klein-80gb",),
                ),
            ),
        ),
        FamilyEntry(
            name="SanaPipeline",
            target="seedpo.models.pipelines.sana:SANA",
            summary="SANA and SANA 1.5",
            words=("sana",),
            checkpoints=(
                Checkpoint(
                    name="Efficient-Large-Model/Sana_600M_1024px_diffusers",
                    parameters=0.59,
                    text="Gemma 2 5 GB",
                    licence="terms of NVIDIA and of Gemma, not looked up",
                ),
                Checkpoint(
                    name="Efficient-Large-Model/Sana_1600M_1024px_diffusers",
                    parameters=1.60,
                    text="Gemma 2 5 GB",
                    licence="terms of NVIDIA and of Gemma, not looked up",
                    recipes=("lora-sana-24gb", "lora-sana-80gb"),
                ),
            ),
        ),
        FamilyEntry(
            name="ZImagePipeline",
            target="seedpo.models.pipelines.z_image:Z_IMAGE",
            summary="Z-Image",
            words=("z-image",),
            untrained="Z-Image-Turbo, which is distilled",
            checkpoints=(
                Checkpoint(
                    name="Tongyi-MAI/Z-Image",
                    parameters=6.16,
                    text="Qwen3-4B 8 GB",
                    licence="Apache-2.0",
                    recipes=("lora-zimage-24gb", "lora-zimage-80gb"),
                ),
            ),
        ),
        FamilyEntry(
            name="QwenImagePipeline",
            target="seedpo.models.pipelines.qwen_image:QWEN_IMAGE",
            summary="Qwen-Image",
            words=("qwen-image",),
            checkpoints=(
                Checkpoint(
                    name="Qwen/Qwen-Image",
                    parameters=20.43,
                    text="Qwen2.5-VL-7B 16 GB",
                    licence="Apache-2.0",
                    recipes=("lora-qwen-image-48gb", "lora-qwen-image-80gb"),
                ),
            ),
        ),
    ),
)
"""Families by the name of the pipeline class, as ``model_index.json`` has it."""
