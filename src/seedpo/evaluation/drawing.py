"""Drawing the images of a target, one file each; what is there is not drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seedpo.data.images import to_pil
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.folder import MEND, EvaluationFolder
from seedpo.evaluation.image_evaluation import draw_images, initial_latent
from seedpo.evaluation.targets import Target, load_target
from seedpo.files import write_aside, writing
from seedpo.protocols import Denoiser

Key = tuple[int, int]
"""Numbers of a prompt and of one of its images."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How images are drawn.

    Attributes:
        images: of each prompt.
        num_inference_steps: of DDIM with eta 0.
        guidance_scale: classifier-free guidance.
        seed: of the initial latents.
        batch_size: images at a time.
    """

    images: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    batch_size: int


def batches(prompts: int, drawing: Drawing) -> list[list[Key]]:
    """All images in batches; they do not depend on what is drawn already, nor on the number of processes.

    An image comes out the same bit for bit only beside the same others.
    """
    keys = [(prompt, image) for prompt in range(prompts) for image in range(drawing.images)]
    return [keys[start : start + drawing.batch_size] for start in range(0, len(keys), drawing.batch_size)]


def lacking_batches(folder: EvaluationFolder, target: Target, prompts: int, drawing: Drawing) -> list[int]:
    """Numbers of the batches of which an image is missing."""
    return [
        number
        for number, batch in enumerate(batches(prompts, drawing))
        if not all(_there(folder, target, key) for key in batch)
    ]


def draw_missing(
    folder: EvaluationFolder,
    target: Target,
    prompts: Sequence[str],
    drawing: Drawing,
    numbers: Sequence[int],
    *,
    device: torch.device | str,
    progress: bool = True,
) -> int:
    """Draws some batches of a target and writes those of their images that are missing.

    Args:
        folder: of the evaluation.
        target: the model, which is loaded if there is anything to draw.
        prompts: all of them.
        drawing: how images are drawn.
        numbers: of the batches, from :func:`lacking_batches`.
        device: where it is drawn.
        progress: whether to show a progress bar.

    Returns:
        How many images were written.

    Raises:
        ConfigError: if the model's schedule has fewer steps.
        DataError: if the model cannot be loaded, or draws images that are not finite.
        RunFolderError: if an image cannot be written.
    """
    if not numbers:
        return 0
    every = batches(len(prompts), drawing)
    mine = [every[number] for number in numbers]
    policy = load_target(target)
    try:
        policy.schedule.timesteps(drawing.num_inference_steps)
    except ValueError as error:
        raise ConfigError(f"target {target.label}: --steps: {error}") from error
    policy.to(device)
    written = 0
    total = sum(len(batch) for batch in mine)
    with tqdm(total=total, desc=f"drawing {target.label}", unit="image", disable=not progress) as bar:
        for batch in mine:
            images = _drawn(policy, batch, prompts, drawing)
            _require_finite(images, batch, prompts, target)
            for key, image in zip(batch, images, strict=True):
                if not _there(folder, target, key):
                    save_image(image, folder.image(target.label, *key))
                    written += 1
            bar.update(len(batch))
    return written


@torch.no_grad()
def _drawn(policy: Denoiser, batch: Sequence[Key], prompts: Sequence[str], drawing: Drawing) -> Tensor:
    latents = [initial_latent(prompt, image, policy.latent_shape, seed=drawing.seed) for prompt, image in batch]
    return draw_images(
        policy,
        [prompts[prompt] for prompt, _ in batch],
        torch.stack(latents),
        num_inference_steps=drawing.num_inference_steps,
        guidance_scale=drawing.guidance_scale,
    )


def _there(folder: EvaluationFolder, target: Target, key: Key) -> bool:
    return folder.image(target.label, *key).is_file()


def _require_finite(images: Tensor, batch: Sequence[Key], prompts: Sequence[str], target: Target) -> None:
    bad = (~torch.isfinite(images).flatten(1).all(1)).nonzero()
    if len(bad):
        prompt, image = batch[int(bad[0])]
        raise DataError(
            f"target {target.label} draws an image that is not finite (image {image} of prompt {prompt}, "
            f"{prompts[prompt]!r}): its weights have diverged, or it needs --mixed-precision bf16 or no"
        )


def save_image(image: Tensor, path: Path) -> None:
    """Writes an image (3, H, W) in [0, 1] as a PNG that is there whole or not at all."""
    write_png(to_pil(image), path)


def write_png(image: Image.Image, path: Path) -> None:
    """Writes an image file that is there whole or not at all."""
    with writing(f"image {path.name}", path.parent, mend=MEND):
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path, durable=False) as aside:
            image.save(aside, format="PNG")
