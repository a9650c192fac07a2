"""What one row through each network costs, and the bytes that a call with all its rows takes, on meta tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from seedpo.data.images.buckets import Size
from seedpo.models.denoiser import PipelineDenoiser, images_of, rows_per_call
from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import autocast_dtype
from seedpo.models.preview import LATENTS_PER_CALL
from seedpo.planning.meter import Flops, metering
from seedpo.planning.scorers import Scorer
from seedpo.settings import Precision

_OF_PAIRS = ("vae_encode", "policy", "reference", "initial", "validation")
"""Parts that see labelled pairs, whose shapes may differ from the model's own."""

_AUTOENCODER = ("vae_encode", "vae_decode", "preview_decode")
"""Parts that read or return images, some at a time."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs.

    Attributes:
        flops: of one row.
        half: whether it computes in half precision.
        peak: bytes that the largest call of the run takes beside the weights.
    """

    flops: Flops
    half: bool
    peak: int = 0


@dataclass(frozen=True, kw_only=True)
class Networks:
    """All networks of a run, on the meta device.

    Attributes:
        policy: the model, as policy and reference; or one that is not trained, or ``None`` where images are judged.
        preview: an autoencoder for previews, if there is one.
        scorers: by the name of the reward; that of the run under the empty name.
        size: height and width in pixels of the images that they are called with; ``None``: the model's own.
    """

    policy: PipelineDenoiser | None
    preview: Any | None = None
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    size: Size | None = None

    @property
    def denoiser(self) -> PipelineDenoiser:
        """The model, which must be there."""
        assert self.policy is not None
        return self.policy

    @property
    def image_size(self) -> Size:
        """Height and width of images, in pixels."""
        return self.size or self.denoiser.image_size

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one latent of these images."""
        return tuple(self.denoiser.family.latent_shape(self.denoiser.pipeline, self.image_size))

    @cached_property
    def tensors(self) -> list[Tensor]:
        """Weights and buffers of all networks, and other values that trained weights can have."""
        components = {} if self.policy is None else self.policy.pipeline.components
        parts = [part for part in components.values() if isinstance(part, nn.Module)]
        others = [self.preview, *(scorer.networks for scorer in self.scorers.values())]
        copies: list[Tensor] = []
        if isinstance(self.policy, PipelinePolicy):
            others.append(self.policy.adapter.frozen)
            copies = [value for copy in self.policy.adapter.copies() for value in copy.values.values()]
        networks = [*parts, *(network for network in others if network is not None)]
        return [*(tensor for network in networks for tensor in (*network.parameters(), *network.buffers())), *copies]


def measure(
    networks: Networks,
    rows_at_once: Mapping[str, int],
    *,
    mixed_precision: Precision,
    with_gradients: bool = False,
    shapes: Mapping[Size, int] | None = None,
    progress: Callable[[str], object] = lambda part: None,
) -> dict[str, Cost]:
    """The cost of every part that a run calls.

    Args:
        networks: what is called.
        rows_at_once: the most rows of one call, by part. ``policy`` is a micro-batch: its FLOPs are those of the
            forward and the backward pass; its peak holds the reference's forward pass beside the policy's activations.
        mixed_precision: of the run.
        with_gradients: whether gradients of an earlier micro-batch are there already; their bytes are not in the peak.
        shapes: labelled pairs by the height and width of their images; ``None``: all have the model's own.
        progress: receives the name of each part before it is measured.
    """
    low = autocast_dtype(mixed_precision)
    measured: dict[str, Cost] = {}
    for part, rows in rows_at_once.items():
        progress(part)
        costs = []
        own: Mapping[Size | None, int] = {networks.size: 1}
        for size, count in (shapes if shapes and part in _OF_PAIRS else own).items():
            sized = replace(networks, size=size)
            if part == "policy":
                costs.append((_training(sized, rows, low=low, with_gradients=with_gradients), count))
            else:
                costs.append((_inference(sized, part, rows, low=low), count))
        measured[part] = _mean(costs)
    return measured


def _mean(costs: Sequence[tuple[Cost, int]]) -> Cost:
    """FLOPs of the mean row, and bytes of the largest call, of costs that occur as often as the numbers say."""
    total = sum(count for _, count in costs)
    flops = [cost.flops.times(Fraction(count, total)) for cost, count in costs]
    return Cost(flops=sum(flops, Flops()), half=costs[0][0].half, peak=max(cost.peak for cost, _ in costs))


def _inference(networks: Networks, part: str, rows: int, *, low: torch.dtype | None) -> Cost:
    call, served, dtype = _call(networks, part, rows, low)
    used = low if dtype is None else dtype
    with torch.no_grad(), metering(known=networks.tensors, low=low if dtype is None else None) as meter:
        result = call()
        peak = meter.peak
        del result
    return Cost(
        flops=meter.flops().times(Fraction(1, served)),
        half=used in (torch.float16, torch.bfloat16),
        # The images of all rows are kept while the next ones are encoded or decoded.
        peak=peak + (rows * 3 * math.prod(networks.image_size) * 4 if part in _AUTOENCODER else 0),
    )


def _call(
    networks: Networks, part: str, rows: int, low: torch.dtype | None
) -> tuple[Callable[[], object], int, torch.dtype | None]:
    """A call of a part, the rows that it serves, and its number format; `None` if automatic mixed precision decides."""
    preview = networks.preview
    kind, _, name = part.partition(":")
    if kind.startswith("scorer_"):
        scorer = networks.scorers[name]
        dtype = next((value.dtype for value in scorer.networks.parameters()), torch.float32)
        if kind == "scorer_latent":
            noisy = torch.empty(rows, *networks.latent_shape, device="meta")
            return (lambda: [call(noisy) for call in scorer.latent_calls]), rows, dtype
        calls = scorer.calls("images" if kind == "scorer_image" else "prompts")
        return (lambda: [call(rows) for call in calls]), rows, dtype
    policy = networks.denoiser
    if kind == "text":
        return (lambda: policy.encode_prompts([str(row) for row in range(rows)])), rows, None
    if kind in ("sampling", "reference", "initial", "validation"):
        return _prediction(networks, rows, low=low, part=kind), rows, None
    some = min(rows, LATENTS_PER_CALL if kind == "preview_decode" else rows_per_call(*networks.image_size))
    if kind == "vae_encode":
        images = torch.empty(some, 3, *networks.image_size, device="meta")
        return (lambda: policy.encode_images(images)), some, policy.pipeline.vae.dtype
    latents = torch.empty(some, *networks.latent_shape, device="meta")
    if kind == "vae_decode":
        return (lambda: policy.decode(latents)), some, policy.pipeline.vae.dtype
    assert preview is not None
    return (lambda: images_of(preview, latents, rows=some)), some, preview.dtype


def _prediction(networks: Networks, rows: int, *, low: torch.dtype | None, part: str) -> Callable[[], Tensor]:
    """A forward pass of a number of rows, by the reference or the model before training if the part is called so."""
    policy, shape = networks.denoiser, networks.latent_shape
    answers: Callable[[], AbstractContextManager[None]] = (
        getattr(policy, part) if part in ("reference", "initial") else nullcontext
    )
    with metering(low=low):
        embedded = policy.encode_prompts(["a prompt"])

    def predict() -> Tensor:
        latents = torch.empty(rows, *shape, device="meta")
        times = torch.zeros(rows, dtype=torch.int64, device="meta")
        with answers():
            return policy.predict(latents, times, embedded.repeat_interleave(rows))

    return predict


def _training(networks: Networks, rows: int, *, low: torch.dtype | None, with_gradients: bool) -> Cost:
    """Forward and backward pass of a micro-batch, the reference's forward pass between them (which is not counted)."""
    policy = networks.policy
    assert isinstance(policy, PipelinePolicy)
    trained = policy.trainable_parameters().values()
    if with_gradients:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    predict, refer = (_prediction(networks, rows, low=low, part=part) for part in ("policy", "reference"))
    with torch.enable_grad(), metering(known=[*networks.tensors, *gradients], low=low) as meter:
        prediction = predict()
        forward = meter.flops()
        refer()
        reference = meter.flops() + forward.times(-1)
        meter.backward(prediction.float().square().mean())
        flops = meter.flops() + reference.times(-1)
        del prediction
        peak = meter.peak
    for parameter in trained:
        parameter.grad = None
    return Cost(flops=flops.times(Fraction(1, rows)), half=low is not None, peak=peak)
