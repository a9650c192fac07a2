"""Scores of the adapters beside those of the originals' pipelines, written once more with PIL and plain tensors.

``python -m tests.rewards.agreement`` prints the table of docs/rewards.md.
"""

from __future__ import annotations

import html
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from seedpo.protocols import Reward
from seedpo.rewards.aesthetic import aesthetic
from seedpo.rewards.clip_score import clipscore, pickscore
from seedpo.rewards.hpsv2 import hpsv2, hpsv21
from seedpo.rewards.hpsv3 import hpsv3
from seedpo.rewards.imagereward import imagereward
from seedpo.rewards.mps import mps
from seedpo.rewards.spm import SD15_WEIGHTS, spm_sd15
from tests.rewards import plain_blip, plain_clip, plain_mps, plain_qwen2_vl, plain_spm, small_checkpoints
from tests.rewards.plain_pixels import as_tensor, clip_values, hps_values, picture
from tests.rewards.small_checkpoints import CONTEXT, IMAGE_SIZE, MERGES, byte_names, vocabulary
from tests.rewards.tiny_clip import tiny_tokenizer

SIZES = [(16, 16), (64, 64), (48, 32), (33, 17), (17, 40), (7, 9), (16, 27), (23, 16), (100, 90), (31, 64)]
PROMPTS = [
    "a large red circle",
    "",
    "the cat's  RED\that &amp;amp; 42 stars!",
    "caf\u00e9 \u65e5\u672c _ok_",
    "the red cat " * 30,
]
"""One is empty, one is too long, and one has white space, entities and capitals."""

FEW_WORDS = ["a red star on a blue ring", "", "ring", "red blue star ring " * 12]
"""For the plain references that know whole words only."""


def pictures(count: int = 30) -> list[Image.Image]:
    return [picture(*SIZES[row % len(SIZES)], seed=row) for row in range(count)]


def prompts(count: int = 30, *, of: Sequence[str] = PROMPTS) -> list[str]:
    return [of[row % len(of)] for row in range(count)]


def token_ids(prompt: str, *, open_clip: bool) -> list[int]:
    """CLIP's byte-pair encoding, by its definition; transformers leaves HTML alone and pads with the end token."""
    known, names = vocabulary(), byte_names()
    text = html.unescape(html.unescape(prompt)) if open_clip else prompt
    text = re.sub(r"\s+", " ", text).strip().lower()
    ids = []
    for word in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", text):
        parts = [names[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        for left, right in (merge.split() for merge in MERGES):
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == (left, right):
                    parts[place : place + 2] = [left + right]
                place += 1
        ids += [known[part] for part in parts]
    start, end = len(known) - 2, len(known) - 1
    row = [start, *ids[: CONTEXT - 2], end]
    return row + [0 if open_clip else end] * (CONTEXT - len(row))


@dataclass(frozen=True)
class Case:
    """A reward read from a small checkpoint, and the original's score of one image.

    Attributes:
        prompts: those that it can read.
        count: images that a test compares; fewer where they take long.
    """

    name: str
    reward: Reward
    original: Callable[[Image.Image, str], float]
    prompts: Sequence[str] = tuple(PROMPTS)
    count: int = 30


def pickscore_case(folder: Path) -> Case:
    clip = plain_clip.from_transformers(small_checkpoints.write_clip(folder), image_heads=2, text_heads=2)

    def original(image: Image.Image, prompt: str) -> float:
        return float(clip.logit_scale.exp()) * cosine(clip, clip_values(image, IMAGE_SIZE, "transformers"), prompt)

    return Case("pickscore", pickscore(str(folder)), original)


def clipscore_case(folder: Path) -> Case:
    clip = plain_clip.from_transformers(small_checkpoints.write_clip(folder, seed=4), image_heads=2, text_heads=2)

    def original(image: Image.Image, prompt: str) -> float:
        return max(100.0 * cosine(clip, clip_values(image, IMAGE_SIZE, "transformers"), prompt), 0.0)

    return Case("clipscore", clipscore(str(folder)), original)


def hps_case(folder: Path, *, second: bool) -> Case:
    file = "HPS_v2.1_compressed.pt" if second else "HPS_v2_compressed.pt"
    weights = small_checkpoints.write_hps(folder, file=file, seed=int(second))
    clip = plain_clip.from_open_clip(weights, image_heads=2, text_heads=2)
    reward = (hpsv21 if second else hpsv2)(str(folder))
    return Case(
        "hpsv2.1" if second else "hpsv2",
        reward,
        lambda image, prompt: cosine(clip, hps_values(image, IMAGE_SIZE), prompt, open_clip=True),
    )


def aesthetic_case(folder: Path) -> Case:
    weights, mlp = small_checkpoints.write_aesthetic(folder)
    clip = plain_clip.from_transformers(weights, image_heads=2, text_heads=2)

    def original(image: Image.Image, prompt: str) -> float:
        values = plain_clip.image_embedding(clip, clip_values(image, IMAGE_SIZE, "torchvision"))
        for place in (0, 2, 4, 6, 7):
            values = mlp[f"layers.{place}.weight"].double() @ values + mlp[f"layers.{place}.bias"].double()
        return float(values)

    return Case("aesthetic", aesthetic(str(folder)), original)


def hpsv3_case(folder: Path) -> Case:
    weights = plain_qwen2_vl.checkpoint()
    reward = hpsv3(str(plain_qwen2_vl.publish(folder, weights)))
    return Case("hpsv3", reward, plain_qwen2_vl.Plain(weights).score, count=10)


def mps_case(folder: Path) -> Case:
    weights = plain_mps.publish(folder)
    return Case("mps", mps(str(folder)), plain_mps.Plain(weights).score)


def imagereward_case(folder: Path) -> Case:
    weights = plain_blip.checkpoint()
    reward = imagereward(str(plain_blip.publish(folder, weights)))
    return Case("imagereward", reward, plain_blip.Plain(weights).score, FEW_WORDS)


def spm_case(folder: Path) -> Case:
    """The time steps are tested in `test_spm.py`; a finished image is one of time step 0."""
    tokenizer = tiny_tokenizer(folder / "tokenizer")
    weights = plain_spm.checkpoint(len(tokenizer))
    reward = spm_sd15(str(plain_spm.publish(folder, weights, tokenizer, file=SD15_WEIGHTS)))
    plain = plain_spm.Plain(weights, tokenizer)

    def original(image: Image.Image, prompt: str) -> float:
        return plain.score(as_tensor([image])[0].float() / 255 * 2 - 1, prompt, 0)

    return Case("spm-sd15", reward, original, FEW_WORDS)


CASES: dict[str, Callable[[Path], Case]] = {
    "pickscore": pickscore_case,
    "hpsv2": lambda folder: hps_case(folder, second=False),
    "hpsv2.1": lambda folder: hps_case(folder, second=True),
    "hpsv3": hpsv3_case,
    "mps": mps_case,
    "imagereward": imagereward_case,
    "aesthetic": aesthetic_case,
    "clipscore": clipscore_case,
    "spm-sd15": spm_case,
}


def cosine(clip: plain_clip.PlainClip, pixels: Tensor, prompt: str, *, open_clip: bool = False) -> float:
    text = plain_clip.text_embedding(clip, token_ids(prompt, open_clip=open_clip))
    return float(plain_clip.image_embedding(clip, pixels) @ text)


def originals(case: Case, images: Sequence[Image.Image], words: Sequence[str]) -> Tensor:
    """Scores (B,), one image at a time."""
    return torch.tensor([case.original(image, prompt) for image, prompt in zip(images, words, strict=True)])


def main() -> None:
    images = pictures(100)
    sys.stdout.write("| reward | images | scores from ... to | largest difference |\n|---|---|---|---|\n")
    for name, make in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            case = make(Path(folder))
        words = prompts(100, of=case.prompts)
        wanted = originals(case, images, words)
        worst = (case.reward(images, words).double() - wanted.double()).abs().max()
        sys.stdout.write(f"| `{name}` | {len(images)} | {wanted.min():.3f} to {wanted.max():.3f} | {worst:.1e} |\n")


if __name__ == "__main__":
    main()
