"""How vivid an image is, whatever it shows: an aesthetic score of one aspect, which needs no model.

    score = 100 mean over the pixels of (max - min of red, green and blue)

The difference of the largest and the smallest channel is the chroma of HSV. It knows neither prompt nor object, so it
grows without bound in what people like a little of: past the most vivid legitimate drawing, an image gains by a larger
object, a coloured background, and colours out of range.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from seedpo.protocols import Images, Reward
from seedpo.rewards.scoring import score_in_batches


def vividness() -> Reward:
    """The reward that is higher for more vivid images; see :func:`mean_chroma`."""
    return mean_chroma


def mean_chroma(images: Images, prompts: Sequence[str]) -> Tensor:
    """Mean chroma of images.

    Args:
        images: (B, 3, H, W) in [0, 1], or B PIL images of any sizes.
        prompts: B prompts, of which only the number counts.

    Returns:
        Per cent of full chroma, in [0, 100], (B,) float32 on the images' device; on the CPU for PIL images.

    Raises:
        DataError: if the counts differ, or an element is not an image.
    """
    device = images.device if isinstance(images, Tensor) else "cpu"
    return score_in_batches(images, prompts, _chroma_of_bytes, device=device)


def _chroma_of_bytes(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    return (images.amax(1) - images.amin(1)).float().mean((1, 2)) * (100.0 / 255.0)
