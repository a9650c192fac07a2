"""What is drawn and measured at evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from seedpo.evaluation.controls import MOST_CANDIDATES, SamplingControl
from seedpo.settings import Place, Section

ACCURACY, LOSS, MARGIN = "validation/accuracy", "validation/loss", "validation/margin"
"""Figures of held-out pairs in lines of metrics."""

Key = tuple[int, int]
"""Index of a prompt and of one of its images."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How images are drawn.

    Attributes:
        images: per prompt.
        num_inference_steps: of the model's own sampler, without noise.
        guidance_scale: classifier-free guidance.
        seed: of the initial latents.
        batch_size: images at a time.
    """

    images: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    batch_size: int

    def batches(self, prompts: int) -> list[list[Key]]:
        """All images in batches, prompt by prompt.

        The batches do not depend on what is drawn already, nor on the number of processes: an image comes out the same
        bit for bit only beside the same others.
        """
        keys = [(prompt, image) for prompt in range(prompts) for image in range(self.images)]
        return [keys[start : start + self.batch_size] for start in range(0, len(keys), self.batch_size)]


class EvaluationConfig(Section):
    """What is generated and measured at evaluations: the same prompts and latents every time."""

    prompts: Annotated[str, Place(names="prompts")] = "general-evaluation"
    """Prompt set: a registered name or a text file with one prompt per line."""
    num_prompts: int = Field(24, ge=1)
    """Prompts taken from the head of the set."""
    images_per_prompt: int = Field(4, ge=1)
    """Initial latents per prompt; diversity needs at least 2."""
    num_inference_steps: int = Field(30, ge=1)
    """Denoising steps of the model's own sampler without noise (DDIM with eta 0, Euler's steps of a flow), so that an
    image is a function of its latent."""
    guidance_scale: float = Field(7.5, ge=1.0)
    """Classifier-free guidance, 7.5 as Stable Diffusion is usually drawn; 5 for methods that roll out at 5. 1 is none,
    and what models need that cannot be guided (FLUX)."""
    rewards: Annotated[tuple[str, ...], Place(names="rewards")] = ()
    """Rewards that are measured, written as `reward` is; the first is shown as the proxy."""
    metrics: Annotated[tuple[str, ...], Place(names="metrics")] = (
        "pairwise_diversity",
        "colourfulness",
        "rms_contrast",
    )
    """Metrics that are measured; the default ones need no weights and read images of any size."""
    seed: int = Field(1234, ge=0)
    """Seed of the initial latents."""
    batch_size: int = Field(8, ge=1)
    """Images drawn at a time; smaller batches need less memory and are dealt out more evenly over several processes.
    Whoever draws a batch, its images are the same."""

    strength: float = Field(1.0, allow_inf_nan=False)
    """Strength of the trained weights in evaluations: 0 is the model before training, 1 the trained one; values outside
    extrapolate. Training is not changed."""
    mixing: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Power p of annealed importance guidance in evaluations (AIG, arXiv 2409.06493): a prediction is that of the
    trained model with weight (1 - t/T)^p, and that of the model before training for the rest. 1 to 4 are usual; None
    mixes nothing in. It takes twice the passes."""
    best_of: int = Field(1, ge=1, le=MOST_CANDIDATES)
    """Images drawn for each that evaluations keep; the first of `evaluation.rewards` picks it. 1 picks nothing."""

    @property
    def control(self) -> SamplingControl:
        """What is done to the model at sampling.

        Raises:
            ConfigError: if strength 0 leaves nothing to mix.
        """
        return SamplingControl(strength=self.strength, mixing=self.mixing, best_of=self.best_of)

    @property
    def drawing(self) -> Drawing:
        """How its images are drawn."""
        return Drawing(
            images=self.images_per_prompt,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            batch_size=self.batch_size,
        )
