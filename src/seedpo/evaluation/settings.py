"""What is generated and measured at evaluations."""

from __future__ import annotations

from pydantic import Field

from seedpo.settings import Section


class EvaluationConfig(Section):
    """What is generated and measured at evaluations: the same prompts and latents every time."""

    prompts: str = "scenes-evaluation"
    """Prompt set: a registered name or a text file with one prompt per line."""
    num_prompts: int = Field(24, ge=1)
    """Prompts taken from the head of the set."""
    images_per_prompt: int = Field(4, ge=1)
    """Initial latents per prompt; diversity needs at least 2."""
    num_inference_steps: int = Field(20, ge=1)
    """Denoising steps (DDIM, eta 0: the image is a function of its latent)."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance."""
    rewards: tuple[str, ...] = ("scenes-scorer",)
    """Rewards that are measured, written as `reward` is; the first is shown as the proxy."""
    metrics: tuple[str, ...] = ("truth", "attribute_accuracy", "pairwise_diversity", "free_spread")
    """Metrics that are measured."""
    seed: int = Field(1234, ge=0)
    """Seed of the initial latents."""
    batch_size: int = Field(64, ge=1)
    """Images drawn at a time; smaller batches need less memory and are dealt out more evenly over several processes.
    Whoever draws a batch, its images are the same."""
