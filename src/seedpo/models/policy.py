"""A denoiser that is trained, together with the reference that it started from: a denoiser and an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.models.adapter import Adapter, FullAdapter, LoraAdapter
from seedpo.models.families import family_of
from seedpo.models.joint import JointNetwork
from seedpo.models.loading import add_initial, load_base
from seedpo.models.lora import carriers
from seedpo.models.settings import ATTENTION_OF_RANK_4, LoraForm, ModelSettings
from seedpo.models.trained import TrainedPipeline
from seedpo.settings import Precision


class PipelinePolicy(TrainedPipeline):
    """A pipeline as policy and reference (:class:`seedpo.protocols.Policy`).

    Args:
        pipeline: a loaded pipeline, in float32; its parts are changed in place.
        adapter: ``lora`` trains an adapter of the network, ``full`` the network itself.
        lora: form of the adapter; of a pipeline that carries one already, only the dropout is used, and the reference
            is the pipeline with it. With text encoders, :meth:`encode_prompts` gives tokens and :meth:`predict` embeds.
        seed: seed of the adapter's initial weights.
        resolution: height and width of images in pixels; ``None`` for the model's own.
        mixed_precision: number format of the forward passes.
        max_sequence_length: tokens of the longest text encoder; ``None``: the family's usual.
        embedded_guidance: guidance that the network takes as an input; ``None``: the family's usual.
        gradient_checkpointing: recompute most activations in the backward pass: less memory, about a third more time,
            the same gradients.
        compile_networks: compile the network, and its frozen copy if there is one, with ``torch.compile``.

    Attributes:
        trains_text: whether the text encoders are trained as well.

    Raises:
        ConfigError: if the resolution or the adapter's form does not fit the model, or nothing gives a resolution.
        DataError: if the pipeline cannot be used, or cannot carry an adapter.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        adapter: Literal["lora", "full"] = "lora",
        lora: LoraForm = ATTENTION_OF_RANK_4,
        seed: int = 0,
        resolution: int | None = None,
        mixed_precision: Precision = "no",
        max_sequence_length: int | None = None,
        embedded_guidance: float | None = None,
        gradient_checkpointing: bool = False,
        compile_networks: bool = False,
    ) -> None:
        family = family_of(pipeline)
        network = getattr(pipeline, family.network)
        if (reason := family.distilled(pipeline)) is not None:
            raise ConfigError(f"this {type(pipeline).__name__} must not be trained: {reason}")
        trains_text = adapter == "lora" and lora.text_encoder
        if trains_text and not family.text_layers:
            raise ConfigError(f"lora_text_encoder must be false: no layers of a {type(pipeline).__name__}'s are known")
        names = (family.network, *(family.text_layers if trains_text else ()))
        networks = {name: getattr(pipeline, name) for name in names if getattr(pipeline, name) is not None}
        # Before the denoiser stores frozen weights rounded: what is trained starts from the loaded weights.
        trained: Adapter
        if adapter == "full":
            trained = FullAdapter(network)
        elif carried := networks.keys() & carriers(pipeline, family):
            trained = LoraAdapter(
                {name: networks[name] for name in names if name in carried},
                family,
                dropout=lora.dropout,
                continued=True,
            )
        else:
            trained = LoraAdapter.new(networks, family, lora, seed=seed)
        super().__init__(
            pipeline,
            trained,
            resolution=resolution,
            mixed_precision=mixed_precision,
            max_sequence_length=max_sequence_length,
            embedded_guidance=embedded_guidance,
        )
        self.trains_text = trains_text
        if trains_text:
            self.module = JointNetwork(pipeline, family, gradient_checkpointing=gradient_checkpointing)
            self.pinned = frozenset({"text_encoder"})
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()
        if compile_networks:
            for part in (network, trained.frozen):
                if part is not None:
                    part.compile()

    @property
    def conditioning_type(self) -> type[Conditioning]:
        """What :meth:`encode_prompts` gives and :meth:`predict` takes."""
        return self.family.tokens if self.trains_text else super().conditioning_type

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        if self.trains_text:
            return self.family.tokenize(self.pipeline, prompts, self.prompt_form)
        return super()._encode(prompts)

    def _raw_prediction(self, latents: Tensor, timestep: Tensor, conditioning: Any, dtype: torch.dtype) -> Tensor:
        if self.trains_text:
            prediction: Tensor = self.module(latents, timestep, conditioning, dtype)
            return prediction
        return super()._raw_prediction(latents, timestep, conditioning, dtype)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of the parameters that are trained, in a fixed order."""
        return self.adapter.parameters()

    def reference(self) -> AbstractContextManager[None]:
        """Within this context :meth:`predict` answers as the present reference does, without gradient.

        :meth:`save` then writes the weights of a reference that was moved.
        """
        return self._answering(self.adapter.reference)

    def move_reference(self) -> None:
        """Makes the present weights the reference; the model before training stays known."""
        self.adapter.move_reference()

    def average_reference(self, decay: float) -> None:
        """The reference becomes ``decay`` times itself plus the rest of the weights; it must have been moved before."""
        self.adapter.average_reference(decay)

    def save(self, folder: Path) -> None:
        """Writes the trained weights in diffusers' format: an adapter's file, or the whole network."""
        self.adapter.save(folder)

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained; the reference does not move.

        Raises:
            DataError: if the file is missing or cut, or its keys are not those of this network.
        """
        self.adapter.load(folder)


def build_policy(settings: ModelSettings) -> PipelinePolicy:
    """Loads the model that settings name, and adds what is trained.

    Raises:
        ConfigError: if the name is unknown, or the resolution or the LoRA does not fit the model.
        DataError: if it cannot be loaded.
    """
    pipeline = load_base(settings)
    add_initial(pipeline, settings)
    return PipelinePolicy(
        pipeline,
        adapter=settings.adapter,
        lora=settings.lora,
        seed=settings.seed,
        resolution=settings.resolution,
        mixed_precision=settings.mixed_precision,
        max_sequence_length=settings.max_sequence_length,
        embedded_guidance=settings.embedded_guidance,
        gradient_checkpointing=settings.gradient_checkpointing,
        compile_networks=settings.compile,
    )
