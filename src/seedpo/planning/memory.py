"""Peak memory of one GPU, phase by phase: an estimate from the live bytes of tensors on the meta device.

Counted: weights as they are stored (those of rewards too, each once), the optimiser's state, gradients, the average of
the weights, what a call holds at its worst, and a reserve. Not counted: fragmentation of the allocator, the scratch
memory of kernels beyond the reserve, and what rewards hold while they score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seedpo.models.policy import PipelinePolicy
from seedpo.models.quantised import saved_bytes
from seedpo.planning.costs import Cost, Networks
from seedpo.planning.networks import weight_bytes
from seedpo.training.optimizers import OPTIMIZERS
from seedpo.training.settings import RunConfig

RESERVE = 2**30
"""Bytes for the CUDA context, cuDNN's and cuBLAS's scratch memory."""

_WORDS = {
    "sampling": "sampling",
    "reference": "reference",
    "initial": "model before training",
    "vae_encode": "encoding images",
    "vae_decode": "decoding images",
    "preview_decode": "decoding previews",
    "text": "encoding prompts",
    "policy": "training step",
    "validation": "validation pairs",
}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        held: what stays throughout, by name.
        phases: what comes on top of it, by phase of the run.
    """

    held: Mapping[str, int]
    phases: Mapping[str, int]

    @property
    def worst(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: self.phases[phase])

    @property
    def peak(self) -> int:
        """Bytes in the worst phase."""
        return sum(self.held.values()) + self.phases[self.worst]


def estimate(
    config: RunConfig, networks: Networks, costs: Mapping[str, Cost], *, gpus: int, cached: bool = False
) -> Memory:
    """The peak memory of each GPU of a run.

    Args:
        config: the run's settings.
        networks: what is held.
        costs: of :func:`seedpo.planning.costs.measure`.
        gpus: of the run; with several, data parallelism holds a second copy of the gradients.
        cached: whether the cache folder is filled: what it stands for is then brought to the GPU when it is called.
    """
    policy = networks.policy
    assert isinstance(policy, PipelinePolicy)
    pipeline = policy.pipeline
    optimizer = OPTIMIZERS[config.optimizer.name]
    trained = sum(parameter.numel() for parameter in policy.trainable_parameters().values())
    encoders = policy.family.text_encoders(pipeline)
    text, images = sum(map(weight_bytes, encoders)), weight_bytes(pipeline.vae)
    parts = {name: part for scorer in networks.scorers.values() for name, part in scorer.parts.items()}
    held = {
        "denoising network": weight_bytes(policy.network) - saved_bytes(policy.network, config.base_precision),
        "frozen copy of it": weight_bytes(policy.adapter.frozen),
        "text encoders": 0 if cached and config.cache.prompts and not policy.trains_text else text,
        "autoencoder": 0 if cached and config.cache.latents else images,
        "preview autoencoder": weight_bytes(networks.preview),
        "reward models": sum(weight_bytes(part.network) for part in parts.values() if part is not None),
        "optimiser state": round(optimizer.state_bytes * trained),
        "reference's own weights": sum(
            value.nbytes for copy in policy.adapter.copies() for value in copy.values.values()
        ),
        "average of the weights": 0 if config.ema_decay is None else 4 * trained,
        "gradient buckets": 4 * trained if gpus > 1 else 0,
        "reserve": RESERVE,
    }
    gradients = 4 * trained
    accumulated = gradients if config.gradient_accumulation_steps > 1 else 0
    phases = {
        _WORDS[part]: cost.peak + (accumulated if part == "policy" else 0)
        for part, cost in costs.items()
        if part in _WORDS
    }
    if cached:
        brought = {"encoding prompts": text - held["text encoders"], "decoding images": images - held["autoencoder"]}
        phases = {name: size + brought.get(name, 0) for name, size in phases.items()}
    if "sampling" in phases and config.mixed_precision != "no":
        phases["sampling"] += 2 * trained  # autocast keeps its copies of trained weights until the call ends
    phases["optimiser step"] = gradients + round(optimizer.step_bytes * trained)
    return Memory(held={name: size for name, size in held.items() if size}, phases=phases)
