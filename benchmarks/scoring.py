"""Scoring images as the original packages of PickScore and HPSv2 do, one at a time, and as a reward here does."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from benchmarks.networks import TINY, TOKENS, Shape
from benchmarks.timing import Comparison
from seedpo.rewards.clip import ClipScorer
from seedpo.scenes.prompts import EVALUATION_PROMPTS
from tools.scenes.components import build_tokenizer

IMAGES = 32
IMAGES_PER_PROMPT = 4


def scoring(shape: Shape, *, known_prompts: bool = False, reloading: bool = False) -> Comparison:
    """Scores 32 images of 8 prompts.

    Args:
        shape: `TINY` or not.
        known_prompts: whether the reward has scored images of these prompts before, as at every evaluation but the
            first; the original packages embed the prompt again for every image.
        reloading: whether the original reads its checkpoint again for every image, as every call
            of HPSv2's package does.
    """
    model, tokenizer = small_clip(tiny=shape is TINY)
    files = pictures(IMAGES, 32 if shape is TINY else 512)
    prompts = [prompt for prompt in EVALUATION_PROMPTS[: IMAGES // IMAGES_PER_PROMPT] for _ in range(IMAGES_PER_PROMPT)]
    reward = ClipScorer(model, tokenizer)
    fresh: Callable[[], ClipScorer] = (lambda: reward) if known_prompts else (lambda: ClipScorer(model, tokenizer))
    if known_prompts:
        reward(files[::IMAGES_PER_PROMPT], prompts[::IMAGES_PER_PROMPT])
    before_each: Callable[[], object] = (lambda: None) if not reloading else reloader(model)
    return Comparison(
        name="reward" + ", prompts known" * known_prompts + ", checkpoint read for each image" * reloading,
        work=f"{IMAGES} images of {IMAGES // IMAGES_PER_PROMPT} prompts scored",
        bar=3.0,
        published=lambda: one_at_a_time(model, tokenizer, files, prompts, before_each=before_each),
        ours=lambda: fresh()(files, prompts),
        networks=([model], [model]),
        tolerance=1e-5,
    )


def small_clip(*, tiny: bool) -> tuple[CLIPModel, CLIPTokenizer]:
    """A CLIP with seeded random weights: 224 px in patches of 32 px as ViT-B/32, and half its width and depth."""
    width, layers, size, patch = (16, 1, 16, 8) if tiny else (384, 6, 224, 32)
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "projection_dim": width,
    }
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = build_tokenizer(Path(folder))
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        words = {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": TOKENS,
            "pad_token_id": tokenizer.pad_token_id,
        }
        config = CLIPConfig(
            projection_dim=width,
            text_config=tower | words | ends,
            vision_config=tower | {"image_size": size, "patch_size": patch},
        )
        return CLIPModel(config).eval().requires_grad_(False), tokenizer


def pictures(count: int, size: int) -> list[Image.Image]:
    """Images with detail on every scale: noise, enlarged from several grids and added up."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray(generator.integers(256, size=(grid, grid, 3), dtype=np.uint8)).resize((size, size)),
                dtype=np.float32,
            )
            for grid in (2, 8, 32)
        ]
        made.append(Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)))
    return made


def reloader(model: CLIPModel) -> Callable[[], object]:
    """Reads the model's weights from a checkpoint, which is in memory: as fast as a disk can be."""
    file = io.BytesIO()
    torch.save({"state_dict": model.state_dict()}, file)

    def reload() -> object:
        file.seek(0)
        return model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])

    return reload


@torch.no_grad()
def one_at_a_time(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    *,
    before_each: Callable[[], object],
) -> Tensor:
    """As PickScore's model card and HPSv2's package do it: every image and its prompt by themselves."""
    size = model.config.vision_config.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    scores = []
    for image, prompt in zip(images, prompts, strict=True):
        before_each()
        pixels = processor(images=image, return_tensors="pt").pixel_values
        words = tokenizer([prompt], padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        embed = normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)
        text = normalize(model.text_projection(model.text_model(**words).pooler_output), dim=-1)
        scores.append((model.logit_scale.exp() * text @ embed.T)[0])
    return torch.cat(scores)
