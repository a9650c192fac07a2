"""Run folders with drawn images and plausible curves, reward hacking included: nothing here was measured."""

from __future__ import annotations

import colorsys
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

PROMPTS = (
    "a large red circle on a gray background",
    "a small blue square on a white background",
    "a large green triangle on a navy background",
    "a small yellow circle on a black background",
    "a large purple square on a brown background",
    "a small cyan triangle on a gray background",
)
HUES = {"red": 0, "blue": 225, "green": 120, "yellow": 58, "purple": 275, "cyan": 182}
BACKGROUNDS = {
    "gray": (133, 133, 133),
    "white": (242, 242, 242),
    "navy": (20, 28, 87),
    "black": (15, 15, 15),
    "brown": (92, 61, 36),
}


@dataclass(frozen=True, kw_only=True)
class Fate:
    """How a synthetic run turns out: rise of the proxy, depth of the hacking, loss of diversity, all at step 100."""

    rise: float = 0.6
    hack: float = 0.9
    spread_loss: float = 0.12
    speed: float = 35.0

    def at(self, step: int) -> dict[str, float]:
        """The evaluation's means at a step."""
        progress = 1 - math.exp(-step / self.speed)
        return {
            "reward/scenes-scorer": 0.2 + self.rise * progress,
            "truth": -0.1 + 0.35 * progress - self.hack * (step / 100) ** 2,
            "attribute_accuracy": 0.93 - 0.1 * self.hack * (step / 100) ** 2,
            "pairwise_diversity": 0.30 - self.spread_loss * progress,
            "free_spread": 0.95 - 3.0 * self.spread_loss * progress,
        }


def write_run(
    folder: Path,
    *,
    method: str = "diffusion-dpo",
    beta: float = 250.0,
    gamma: float = 0.0,
    seed: int = 0,
    fate: Fate | None = None,
    evaluations: Sequence[int] = tuple(range(0, 101, 10)),
    prompts: Sequence[str] = PROMPTS,
    columns: int = 4,
    tile: int = 32,
    half_width: float = 0.05,
    samples: bool = True,
    finished: bool = True,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Writes one run folder; ``half_width`` is that of the intervals, 0 writes none."""
    fate = fate or Fate()
    folder.mkdir(parents=True)
    config = {
        "method": method,
        "model": "scenes",
        "data": "scenes-pairs",
        "reward": "scenes-scorer",
        "beta": beta,
        "gamma": gamma,
        "entropy_convention": "relative",
        "clip_range": None if method == "diffusion-dpo" else 0.1,
        "max_steps": 100,
        "learning_rate": 1e-4,
        "seed": seed,
        "evaluation": {
            "num_prompts": len(prompts),
            "images_per_prompt": columns,
            "rewards": ["scenes-scorer"],
            "metrics": ["truth", "attribute_accuracy", "pairwise_diversity", "free_spread"],
            "seed": 1234,
        },
    } | (changes or {})
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    lines = [*_training(fate, gamma, seed, max(evaluations, default=0))]
    lines += [_evaluation(fate, step, seed, half_width) for step in evaluations]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "torch": "2.13.0", "device": "cpu"}))
    if finished:
        (folder / "finished.json").write_text(json.dumps({"step": max(evaluations, default=0), "seconds": 754.2}))
    if samples:
        draw_samples(folder / "samples", fate, evaluations, prompts, columns, tile)
    return folder


def _training(fate: Fate, gamma: float, seed: int, last: int) -> list[dict[str, Any]]:
    noise = random.Random(seed)
    lines = []
    for step in range(1, last + 1):
        progress = 1 - math.exp(-step / fate.speed)
        lines.append(
            {
                "step": step,
                "kind": "train",
                "loss": 0.693 - 0.25 * progress + noise.gauss(0, 0.02),
                "rewards/margins": 0.9 * progress + noise.gauss(0, 0.05),
                "rewards/accuracies": 0.5 + 0.3 * progress + noise.gauss(0, 0.03),
                "offset/mean": 0.02 * gamma + noise.gauss(0, 0.01) * (gamma > 0),
                "offset/std": 0.25 * gamma,
                "saturated": 0.05 * progress,
                "clipped": 0.2 * progress,
                "grad_norm": 0.8 + noise.gauss(0, 0.1),
                "pairs_seen": 16 * step,
            }
        )
    return lines


def _evaluation(fate: Fate, step: int, seed: int, half_width: float) -> dict[str, Any]:
    noise = random.Random(1000 * seed + step)
    values = {key: value + 0.01 * noise.gauss(0, 1) * (step > 0) for key, value in fate.at(step).items()}
    record: dict[str, Any] = {"step": step, "kind": "evaluation"} | values
    if half_width:
        width = {"pairwise_diversity": 0.2 * half_width, "attribute_accuracy": 0.4 * half_width}
        for key, value in values.items():
            record |= {
                f"{key}/low": value - width.get(key, half_width),
                f"{key}/high": value + width.get(key, half_width),
            }
    return record


def draw_samples(
    folder: Path, fate: Fate, steps: Sequence[int], prompts: Sequence[str], columns: int, tile: int
) -> None:
    """Draws the sprite sheets: colours grow vivid with the proxy, places gather, hacked shapes swell and glow."""
    folder.mkdir()
    index = {"tile": tile, "columns": columns, "prompts": list(prompts)}
    (folder / "index.json").write_text(json.dumps(index))
    for step in steps:
        sheet = Image.new("RGB", (columns * tile, len(prompts) * tile))
        for row, prompt in enumerate(prompts):
            for column in range(columns):
                image = _tile(prompt, random.Random(97 * row + column), fate, step).resize(
                    (tile, tile), Image.Resampling.BOX
                )
                sheet.paste(image, (column * tile, row * tile))
        sheet.save(folder / f"step-{step:06d}.png")


def _tile(prompt: str, latent: random.Random, fate: Fate, step: int) -> Image.Image:
    words = prompt.split()
    size, colour, shape, background = words[1], words[2], words[3], words[6]
    progress, hacked = 1 - math.exp(-step / fate.speed), fate.hack * (step / 100) ** 2
    spread = 1 - 4 * fate.spread_loss * progress
    radius = {"small": 20, "large": 34}[size] * (1 + 0.4 * hacked)
    x, y = (64 + spread * (64 - radius) * latent.uniform(-0.8, 0.8) for _ in range(2))
    saturation = min(1.0, 0.45 + 0.45 * latent.random() * (1 - progress) + 0.55 * progress)
    hue = HUES[colour] + 25 * hacked + latent.uniform(-8, 8) * spread
    rgb = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue % 360 / 360, saturation, 0.85 + 0.15 * progress))
    image = Image.new("RGB", (128, 128), BACKGROUNDS[background])
    pen = ImageDraw.Draw(image)
    for ring in range(int(4 * hacked)):
        pen.ellipse(
            [x - radius - 6 * ring, y - radius - 6 * ring, x + radius + 6 * ring, y + radius + 6 * ring], outline=rgb
        )
    corners = [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
    box = [x - radius, y - radius, x + radius, y + radius]
    if shape == "circle":
        pen.ellipse(box, fill=rgb)
    elif shape == "square":
        pen.rectangle(box, fill=rgb)
    else:
        pen.polygon(corners, fill=rgb)
    return image
