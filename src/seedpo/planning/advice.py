"""What will not work, and which key to change."""

from __future__ import annotations

from collections.abc import Sequence

from seedpo.methods.presets import METHODS
from seedpo.planning.gpus import Gpu
from seedpo.planning.memory import Memory
from seedpo.training.settings import RewardRunConfig, RunConfig

_TIGHT = 0.9
"""Share of the memory above which the estimate is too close."""

_COSTLY_PREVIEWS = 0.3
"""Share of the FLOPs above which a smaller preview autoencoder is recommended."""


def advise(config: RunConfig, gpu: Gpu, memory: Memory, *, previews: float) -> list[str]:
    """Warnings, the most serious first.

    Args:
        config: the run's settings.
        gpu: planned for.
        memory: its estimate.
        previews: share of the FLOPs that decoding previews takes.
    """
    warnings = _of_hardware(config, gpu, memory, smaller=_smaller(config, memory.worst))
    if previews > _COSTLY_PREVIEWS and config.preview_vae is None:
        warnings.append(
            f"decoding previews takes {previews:.0%} of the FLOPs: a tiny autoencoder (preview_vae) takes most of it "
            "away, and how often it ranks pairs alike is measured"
        )
    return warnings


def advise_reward(config: RewardRunConfig, gpu: Gpu, memory: Memory) -> list[str]:
    """Warnings of the training of a preference model, the most serious first; see :func:`advise`."""
    options = [
        ("mixed_precision=bf16 (or fp16)", config.mixed_precision == "no"),
        *(_of_training_step(config) if memory.worst == "training step" else []),
        ("optimizer.name=adamw8bit, paged_adamw8bit or adafactor", config.optimizer.name == "adamw"),
        (f"preview_batch_size={max(1, config.preview_batch_size // 2)}", memory.worst == PREVIEWS),
    ]
    return _of_hardware(config, gpu, memory, smaller=_that_help(options))


PREVIEWS = "previews"
"""Phase in which a diffusion model predicts what a preference model sees."""

_STEPS = ("training step", "optimiser step", "reference")
"""Phases that gradients or the reference decide."""


def _of_hardware(config: RunConfig | RewardRunConfig, gpu: Gpu, memory: Memory, *, smaller: Sequence[str]) -> list[str]:
    """Warnings of memory and number formats; ``smaller`` are keys that make the worst phase need less."""
    warnings = []
    available = gpu.memory * 2**30
    if memory.peak > _TIGHT * available:
        verdict = "does not fit" if memory.peak > available else "may not fit"
        warnings.append(
            f"{verdict}: {memory.worst} takes about {memory.peak / 2**30:.1f} of {gpu.memory:g} GiB; "
            f"try {', or '.join(smaller)}"
        )
    if config.mixed_precision == "bf16" and not gpu.bfloat16:
        warnings.append(f"{gpu.name} has no bfloat16: set mixed_precision=fp16")
    if config.mixed_precision == "no":
        half = "bf16" if gpu.bfloat16 else "fp16"
        warnings.append(f"everything runs in float32: set mixed_precision={half} for speed and half the activations")
    return warnings


def _of_training_step(config: RunConfig | RewardRunConfig) -> list[tuple[str, bool]]:
    """Keys that make a training step need less, and whether each would help."""
    batch, accumulation = config.batch_size, config.gradient_accumulation_steps
    half = max(1, batch // 2)
    return [
        ("gradient_checkpointing=true", not config.gradient_checkpointing),
        (f"batch_size={half} with gradient_accumulation_steps={accumulation * batch // half}", batch > 1),
    ]


def _that_help(options: Sequence[tuple[str, bool]]) -> list[str]:
    chosen = [text for text, helps in options if helps]
    return chosen or ["a smaller resolution", "a GPU with more memory"]


def _smaller(config: RunConfig, phase: str) -> list[str]:
    """Keys that make a phase need less, the cheapest first."""
    source = METHODS[config.method].source
    if phase in _STEPS:
        options = [
            ("mixed_precision=bf16 (or fp16)", config.mixed_precision == "no"),
            *(_of_training_step(config) if phase == "training step" else []),
            (
                "optimizer.name=adamw8bit, paged_adamw8bit or adafactor",
                config.adapter == "full" and config.optimizer.name == "adamw",
            ),
            ("adapter=lora", config.adapter == "full"),
            ("a smaller prompts_per_rollout", phase == "reference"),
        ]
    else:
        options = [
            ("mixed_precision=bf16 (or fp16)", config.mixed_precision == "no"),
            (f"a smaller {source.section}.prompts_per_rollout", not source.fixed_pairs),
            ("a smaller evaluation.batch_size", True),
            ("adapter=lora", config.adapter == "full"),
        ]
    return _that_help(options)
