"""What one row through each network costs, and the bytes that a call with all its rows takes, on meta tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.core.types import Conditioning
from seedpo.models.denoiser import PIXELS_PER_CALL
from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import autocast_dtype
from seedpo.planning.meter import Flops, metering
from seedpo.planning.scorers import Scorer
from seedpo.settings import Precision

PREVIEWS_PER_CALL = 8
"""Latents that a preview autoencoder is given at a time."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs.

    Attributes:
        flops: of one row.
        half: whether it computes in half precision.
        peak: bytes beside the weights that the largest call of the run takes; 0 where it is not asked for.
    """

    flops: Flops
    half: bool
    peak: int = 0


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Everything that a run calls, on the meta device.

    Attributes:
        policy: the model, as policy and reference.
        preview: an autoencoder for previews, if there is one.
        scorers: by the name of the reward; that of the run under the empty name.
    """

    policy: PipelinePolicy
    preview: Any | None = None
    scorers: Mapping[str, Scorer] = field(default_factory=dict)


def measure(
    networks: Networks,
    rows_at_once: Mapping[str, int],
    *,
    mixed_precision: Precision,
    with_gradients: bool = False,
    progress: Callable[[str], object] = lambda part: None,
) -> dict[str, Cost]:
    """The cost of every part that a run calls.

    Args:
        networks: what is called.
        rows_at_once: the most rows of one call, by part. ``policy`` is a micro-batch: its FLOPs are those of the
            forward and the backward pass; its peak holds the reference's forward pass beside the policy's activations.
        mixed_precision: of the run.
        with_gradients: whether gradients of an earlier micro-batch are there already; their bytes are not in the peak.
        progress: called with the name of each part before it is measured.
    """
    low = autocast_dtype(mixed_precision)
    measured: dict[str, Cost] = {}
    for part, rows in rows_at_once.items():
        progress(part)
        if part == "policy":
            measured[part] = _training(networks.policy, rows, low=low, with_gradients=with_gradients)
        else:
            measured[part] = _inference(networks, part, rows, low=low)
    return measured


def _inference(networks: Networks, part: str, rows: int, *, low: torch.dtype | None) -> Cost:
    policy = networks.policy
    call, network, dtype = _calls(networks, part, rows)
    used = low if dtype is None else None
    with torch.no_grad(), metering(known=_tensors(network), low=used) as meter:
        result = call()
        peak = meter.peak
        del result
    counted = meter.flops()
    served = min(rows, _rows_per_call(policy, part))
    half = (used or dtype) in (torch.float16, torch.bfloat16)
    return Cost(flops=counted.times(Fraction(1, served)), half=half, peak=peak + _bytes_kept(policy, part, rows))


def _calls(networks: Networks, part: str, rows: int) -> tuple[Callable[[], object], nn.Module, torch.dtype | None]:
    """The call of a part, its network, and the type in which it computes where autocast does not decide."""
    policy = networks.policy
    pipeline, kind = policy.pipeline, part.partition(":")[0]
    some = min(rows, _rows_per_call(policy, kind))
    if kind in ("sampling", "reference"):
        return (lambda: _predict(policy, some, reference=kind == "reference")), _network_of(policy, kind), None
    if kind == "text":
        encoders = [getattr(pipeline, name) for name in ("text_encoder", "text_encoder_2") if hasattr(pipeline, name)]
        return (lambda: [encoder(_ids(encoder, some)) for encoder in encoders]), nn.ModuleList(encoders), None
    if kind == "vae_encode":
        images = torch.empty(some, 3, *policy.image_size, device="meta")
        return (lambda: policy.encode_images(images)), pipeline.vae, pipeline.vae.dtype
    latents = torch.empty(some, *policy.latent_shape, device="meta")
    if kind == "vae_decode":
        return (lambda: policy.decode(latents)), pipeline.vae, pipeline.vae.dtype
    if kind == "preview_decode":
        preview = networks.preview
        assert preview is not None
        return (lambda: preview.decode(latents.to(preview.dtype), return_dict=False)), preview, preview.dtype
    scorer = networks.scorers[part.partition(":")[2]]
    asked, scored = scorer.calls("images" if kind == "scorer_image" else "prompts"), scorer.networks
    dtype = next((value.dtype for value in scored.parameters()), torch.float32)
    return (lambda: [call(some) for call in asked]), scored, dtype


def _network_of(policy: PipelinePolicy, kind: str) -> nn.Module:
    frozen = policy.adapter.frozen
    return frozen if kind == "reference" and frozen is not None else policy.module


def _rows_per_call(policy: PipelinePolicy, kind: str) -> int:
    """Rows that the code gives a network at a time, whatever it is asked for."""
    height, width = policy.image_size
    limits = {
        "vae_encode": max(1, PIXELS_PER_CALL // (height * width)),
        "vae_decode": max(1, PIXELS_PER_CALL // (height * width)),
        "preview_decode": PREVIEWS_PER_CALL,
    }
    return limits.get(kind, 2**31)


def _bytes_kept(policy: PipelinePolicy, kind: str, rows: int) -> int:
    """Images of all rows, which are kept while the next are decoded."""
    height, width = policy.image_size
    return rows * 3 * height * width * 4 if kind in ("vae_decode", "preview_decode", "vae_encode") else 0


def _ids(encoder: Any, rows: int) -> Tensor:
    return torch.zeros(rows, encoder.config.max_position_embeddings, dtype=torch.int64, device="meta")


def conditioning(policy: PipelinePolicy, rows: int) -> Conditioning:
    """Embedded prompts on the meta device."""
    pipeline, unet = policy.pipeline, policy.pipeline.unet.config
    length = pipeline.text_encoder.config.max_position_embeddings
    two = hasattr(pipeline, "text_encoder_2")
    pooled = pipeline.text_encoder_2.config.projection_dim if two else 0
    return Conditioning(
        prompt_embeds=torch.empty(rows, length, unet.cross_attention_dim, device="meta"),
        pooled_prompt_embeds=torch.empty(rows, pooled, device="meta") if two else None,
        time_ids=torch.empty(rows, 6, device="meta") if two else None,
    )


def _predict(policy: PipelinePolicy, rows: int, *, reference: bool = False) -> Tensor:
    latents = torch.empty(rows, *policy.latent_shape, device="meta")
    inputs = (latents, torch.zeros(rows, dtype=torch.int64, device="meta"), conditioning(policy, rows))
    if not reference:
        return policy.predict(*inputs)
    with policy.reference():
        return policy.predict(*inputs)


def _training(policy: PipelinePolicy, rows: int, *, low: torch.dtype | None, with_gradients: bool) -> Cost:
    """Forward and backward pass of a micro-batch, the reference's forward pass between them (which is not counted)."""
    trained = policy.trainable_parameters().values()
    if with_gradients:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    known = [*_tensors(policy.module), *_tensors(policy.adapter.frozen), *gradients]
    with torch.enable_grad(), metering(known=known, low=low) as meter:
        prediction = _predict(policy, rows)
        forward = meter.flops()
        _predict(policy, rows, reference=True)
        reference = meter.flops() + forward.times(-1)
        meter.backward(prediction.float().square().mean())
        flops = meter.flops() + reference.times(-1)
        del prediction
        peak = meter.peak
    for parameter in trained:
        parameter.grad = None
    return Cost(flops=flops.times(Fraction(1, rows)), half=low is not None, peak=peak)


def _tensors(network: nn.Module | None) -> list[Tensor]:
    return [] if network is None else [*network.parameters(), *network.buffers()]
