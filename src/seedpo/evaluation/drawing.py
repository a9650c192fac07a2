"""Drawing images for training's evaluations, `seedpo evaluate` and `seedpo sample`.

The sampler is the model's own without noise (DDIM with eta 0, Euler's steps of a flow), so that an image is a function
of its initial latent. The latent is a function of the seed, the index of the prompt and the index of the image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from seedpo.core.sampling import Denoise, Sampler, Sampling
from seedpo.errors import ConfigError
from seedpo.evaluation.controls import MOST_CANDIDATES, SamplingControl
from seedpo.evaluation.settings import Drawing, Key
from seedpo.metrics.records import Samples
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.mixing import MixedDenoiser
from seedpo.protocols import Denoiser, Reward, TrainedDenoiser
from seedpo.rewards.named import build_reward
from seedpo.rewards.names import Definitions, check_name, image_sizes
from seedpo.settings import Precision

logger = logging.getLogger(__name__)

SHOWN = 3
"""Prompts that are cut and named one by one."""


def initial_latent(prompt: int, image: int, shape: Sequence[int], *, seed: int) -> Tensor:
    """The latent (C, H, W) of one image, from a seed of its own: it does not depend on how many others there are."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + prompt) * 1_009 + image)
    return torch.randn(tuple(shape), generator=generator)


def _step_noise(prompt: int, image: int, *, seed: int) -> torch.Generator:
    """Noise of the steps of one image, other than that of its latent."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + prompt) * 1_009 + image) * 2 + 2**40 + 1)


def warn_of_cut_prompts(denoiser: PipelineDenoiser, prompts: Sequence[str]) -> None:
    """Says which prompts are longer than the model's longest text encoder reads, and what is cut."""
    cut = {prompt: rest for prompt in dict.fromkeys(prompts) if (rest := denoiser.unread_text(prompt))}
    for prompt, rest in list(cut.items())[:SHOWN]:
        logger.warning("prompt %r is longer than the model reads: %r is cut", prompt, rest)
    if len(cut) > SHOWN:
        logger.warning("%d more prompts are cut", len(cut) - SHOWN)


@contextmanager
def controlled(denoiser: Denoiser, control: SamplingControl) -> Iterator[Denoiser]:
    """What draws with the strength and the mixing of a control; the denoiser itself is as before afterwards.

    Args:
        denoiser: a :class:`seedpo.protocols.TrainedDenoiser` where the control needs training.
        control: how images are drawn.

    Raises:
        ConfigError: if an untrained model is to be drawn from between itself and what was trained, or the strength
            of a DoRA is set.
    """
    if not control.needs_training:
        yield denoiser
        return
    if not isinstance(denoiser, TrainedDenoiser):
        raise ConfigError(
            f"{control.name}: strength and mixing stand between the base model and a trained one; name a run or a LoRA"
        )
    with denoiser.at_strength(control.strength) if control.strength != 1 else nullcontext():
        yield denoiser if control.mixing is None else MixedDenoiser(denoiser, control.mixing)


@torch.no_grad()
def draw_batch(
    denoiser: Denoiser,
    prompts: Sequence[str],
    batch: Sequence[Key],
    drawing: Drawing,
    *,
    negative_prompt: str = "",
    denoise: Denoise | None = None,
) -> Tensor:
    """Images (B, 3, height, width) on the CPU.

    Args:
        denoiser: draws them.
        prompts: all prompts, of which the batch takes some.
        batch: which images are drawn.
        drawing: how they are drawn.
        negative_prompt: what guidance leads away from.
        denoise: draws the clean latents; ``None`` for the process's own sampler.
    """
    latents = [initial_latent(prompt, image, denoiser.latent_shape, seed=drawing.seed) for prompt, image in batch]
    settings = Sampling(num_inference_steps=drawing.num_inference_steps, guidance_scale=drawing.guidance_scale)
    start = torch.stack(latents).to(denoiser.device)
    positive = denoiser.encode_prompts([prompts[prompt] for prompt, _ in batch])
    negative = denoiser.encode_prompts([negative_prompt] * len(batch))
    if denoise is None:
        clean = Sampler(denoiser, settings).sample(start, positive, negative)
    else:
        clean = denoise(start, positive, negative, [_step_noise(*key, seed=drawing.seed) for key in batch])
    return denoiser.decode(clean).cpu()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Best of n: which of several images is kept.

    Attributes:
        best_of: n, images drawn for each that is kept.
        reward: scores them.
    """

    best_of: int
    reward: Reward


def choice_by(reward: Reward | None, control: SamplingControl) -> Choice | None:
    """The choice that a control asks for; ``None`` if it draws one image for each.

    Raises:
        ConfigError: if no reward is there to pick.
    """
    if control.best_of == 1:
        return None
    if reward is None:
        raise ConfigError(f"best_of = {control.best_of} needs a reward that picks; name one, or set best_of to 1")
    return Choice(best_of=control.best_of, reward=reward)


def picking_reward(
    name: str, model: PipelineDenoiser, *, definitions: Definitions | None = None, precision: Precision = "no"
) -> Reward:
    """The reward that picks the best of several images of a model, on the model's device.

    Args:
        name: as users write it.
        model: draws the images.
        definitions: weighted sums and rewards on servers by their names.
        precision: of its networks.

    Raises:
        ConfigError: if the name is not that of a reward, or it cannot read the model's images.
        DataError: if it cannot be loaded.
    """
    check_name(name, definitions or {})
    height, width = model.image_size
    for leaf, side in image_sizes(name, definitions).items():
        if (height, width) != (side, side):
            raise ConfigError(
                f"--best-by {name}: {leaf} reads images of {side} x {side} pixels only, and the model draws {height} x "
                f"{width}; name another reward"
            )
    return build_reward(name, definitions=definitions, device=model.device, precision=precision)


def draw_best(
    denoiser: Denoiser,
    prompts: Sequence[str],
    batch: Sequence[Key],
    drawing: Drawing,
    choice: Choice | None,
    *,
    negative_prompt: str = "",
    denoise: Denoise | None = None,
) -> Tensor:
    """Of several images for each of a batch the one with the highest reward, (B, 3, height, width) on the CPU.

    Of K images of a prompt, image k is the best of those numbered k, k + K, ..., k + (n - 1) K. So the best of 4 are
    chosen among images that the best of 8 are chosen among, too. The first of equal ones is kept.

    Args:
        denoiser: draws them.
        prompts: all prompts, of which the batch takes some.
        batch: which images are kept.
        drawing: how they are drawn; K is its number of images.
        choice: how many are drawn, and what scores them; ``None`` draws one for each, as :func:`draw_batch`.
        negative_prompt: what guidance leads away from.
        denoise: draws the clean latents; ``None`` for the process's own sampler.

    Returns:
        The images. Where one that was drawn is not finite, it is among them, for the caller to refuse.

    Raises:
        ConfigError: if there are not enough latents for so many images of a prompt.
    """
    if choice is not None and choice.best_of * drawing.images > MOST_CANDIDATES:
        raise ConfigError(
            f"the best of {choice.best_of} for each of {drawing.images} images of a prompt needs more than the "
            f"{MOST_CANDIDATES} latents that there are; ask for fewer"
        )

    def draw(candidate: int) -> Tensor:
        keys = [(prompt, image + candidate * drawing.images) for prompt, image in batch]
        return draw_batch(denoiser, prompts, keys, drawing, negative_prompt=negative_prompt, denoise=denoise)

    best = draw(0)
    if choice is None or not torch.isfinite(best).all():
        return best
    texts = [prompts[prompt] for prompt, _ in batch]
    highest = choice.reward(best, texts).detach().cpu()
    for candidate in range(1, choice.best_of):
        images = draw(candidate)
        if not torch.isfinite(images).all():
            return images
        scores = choice.reward(images, texts).detach().cpu()
        better = scores > highest
        best[better], highest[better] = images[better], scores[better]
    return best


def draw_samples(
    denoiser: Denoiser,
    prompts: Sequence[str],
    drawing: Drawing,
    choice: Choice | None = None,
    *,
    negative_prompt: str = "",
    denoise: Denoise | None = None,
) -> Samples:
    """All images of some prompts; arguments as those of :func:`draw_best`."""
    batches = [
        draw_best(denoiser, prompts, batch, drawing, choice, negative_prompt=negative_prompt, denoise=denoise)
        for batch in drawing.batches(len(prompts))
    ]
    return as_samples(torch.cat(batches), prompts)


def as_samples(images: Tensor, prompts: Sequence[str]) -> Samples:
    """Images (P K, 3, H, W), prompt by prompt, as samples."""
    return Samples(images=images.view(len(prompts), -1, *images.shape[1:]), prompts=prompts)
