"""Stable Diffusion pipelines behind the narrow :class:`seedpo.protocols.Policy`.

The trained network is the pipeline's UNet, whole or through a LoRA adapter. With an adapter the reference is the same
network with the adapter switched off, so that no second UNet is held; in full fine-tuning it is a frozen copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seedpo.core.diffusion import NoiseSchedule
from seedpo.core.types import Conditioning
from seedpo.errors import DataError

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Attention projections that carry the adapter."""

LORA_FILE = "pytorch_lora_weights.safetensors"


def noise_schedule(scheduler: Any) -> NoiseSchedule:
    """Reads the noise levels and the kind of prediction out of a diffusers scheduler of the DDPM family.

    Latents are clipped only where the configuration says so; a DDIM scheduler made from a configuration without that
    key (those of PNDM, Euler, DPM-Solver) would clip them.
    """
    ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=scheduler.config.get("clip_sample", False))
    return NoiseSchedule(
        alphas_cumprod=ddim.alphas_cumprod,
        final_alpha_cumprod=float(ddim.final_alpha_cumprod),
        prediction_type=ddim.config.prediction_type,
        timestep_spacing=ddim.config.timestep_spacing,
        steps_offset=ddim.config.steps_offset,
        clip_sample_range=ddim.config.clip_sample_range if ddim.config.clip_sample else None,
    )


class StableDiffusionPolicy:
    """A Stable Diffusion 1.x pipeline as policy and reference.

    Args:
        pipeline: a loaded pipeline; its UNet is changed in place.
        adapter: ``lora`` adds an adapter to the UNet, ``full`` trains the UNet itself.
        lora_rank: rank (and alpha) of the adapter.
        seed: seed of the adapter's initial weights.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        *,
        adapter: Literal["lora", "full"] = "lora",
        lora_rank: int = 4,
        seed: int = 0,
    ) -> None:
        self.pipeline = pipeline
        self.adapter = adapter
        self._schedule = noise_schedule(pipeline.scheduler)
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
            part.requires_grad_(False).eval()
        self.module: nn.Module = pipeline.unet
        self.frozen: nn.Module | None = None
        """The reference of full fine-tuning; whoever prepares ``module`` for a device or precision prepares it too."""
        self._on_reference = False
        if adapter == "lora":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                pipeline.unet.add_adapter(
                    LoraConfig(
                        r=lora_rank,
                        lora_alpha=lora_rank,
                        init_lora_weights="gaussian",
                        target_modules=list(LORA_TARGETS),
                    )
                )
            for parameter in self.trainable_parameters().values():
                parameter.data = parameter.data.float()
        else:
            self.frozen = deepcopy(pipeline.unet)
            pipeline.unet.requires_grad_(True)

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise levels and the kind of prediction."""
        return self._schedule

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one latent image."""
        config = self.pipeline.unet.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""
        device: torch.device = next(self.pipeline.unet.parameters()).device
        return device

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of the parameters that are trained, in a fixed order."""
        return {name: value for name, value in self.pipeline.unet.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embeds prompts as the pipeline does: padded and cut to the tokenizer's length."""
        tokenizer, text_encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        ids = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return Conditioning(prompt_embeds=text_encoder(ids.to(self.device)).last_hidden_state)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's raw prediction, (B, C, H, W)."""
        network = self.frozen if self._on_reference and self.frozen is not None else self.module
        dtype = conditioning.prompt_embeds.dtype
        prediction: Tensor = network(
            latents.to(dtype), timestep, encoder_hidden_states=conditioning.prompt_embeds, return_dict=False
        )[0]
        return prediction

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context :meth:`predict` answers as the untrained model does, without gradient."""
        self._on_reference = True
        if self.adapter == "lora":
            self.pipeline.unet.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self._on_reference = False
            if self.adapter == "lora":
                self.pipeline.unet.enable_adapters()

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Mean latents (B, C, H, W) of images (B, 3, height, width) in [0, 1], scaled as the UNet expects them."""
        vae = self.pipeline.vae
        posterior = vae.encode(images.to(device=self.device, dtype=vae.dtype) * 2.0 - 1.0).latent_dist
        latents: Tensor = posterior.mean * vae.config.scaling_factor
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, height, width) in [0, 1]."""
        vae = self.pipeline.vae
        images: Tensor = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return (images.float() / 2.0 + 0.5).clamp(0.0, 1.0)

    def save(self, folder: Path) -> None:
        """Writes the adapter as ``pytorch_lora_weights.safetensors``, or the whole UNet, in diffusers' format."""
        if self.adapter == "lora":
            layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.pipeline.unet))
            StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
        else:
            self.pipeline.unet.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained; the reference does not move.

        Raises:
            DataError: if the file is missing or cut, or its keys are not those of this adapter.
        """
        path = folder / (LORA_FILE if self.adapter == "lora" else "diffusion_pytorch_model.safetensors")
        if not path.is_file():
            raise DataError(f"{path} is missing: the folder holds no weights of a {self.adapter} run")
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise DataError(f"{path} cannot be read as safetensors ({error}); copy it again") from error
        if self.adapter == "lora":
            weights = {
                name.removeprefix("unet.").replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): value
                for name, value in weights.items()
            }
            expected = get_peft_model_state_dict(self.pipeline.unet)
        else:
            expected = self.pipeline.unet.state_dict()
        wrong = set(weights.keys() ^ expected.keys()) | {
            name for name in weights.keys() & expected.keys() if weights[name].shape != expected[name].shape
        }
        if wrong:
            raise DataError(f"{path} does not fit this model: {len(wrong)} tensors differ, for example {min(wrong)!r}")
        if self.adapter == "lora":
            set_peft_model_state_dict(self.pipeline.unet, weights)
        else:
            self.pipeline.unet.load_state_dict(weights)


def load_policy(
    folder: str | Path, *, adapter: Literal["lora", "full"] = "lora", lora_rank: int = 4, seed: int = 0
) -> StableDiffusionPolicy:
    """Loads a pipeline folder in diffusers' format as a policy.

    Raises:
        DataError: if the folder holds no such pipeline.
    """
    return StableDiffusionPolicy(load_pipeline(folder), adapter=adapter, lora_rank=lora_rank, seed=seed)


def load_pipeline(folder: str | Path) -> StableDiffusionPipeline:
    """Loads a Stable Diffusion pipeline from a local folder, safetensors only.

    Raises:
        DataError: if the folder holds no such pipeline.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise DataError(f"model folder {folder} has no model_index.json; name a diffusers pipeline, or `scenes`")
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, requires_safety_checker=False, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"model folder {folder} cannot be loaded as a Stable Diffusion pipeline: {error}") from error
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
