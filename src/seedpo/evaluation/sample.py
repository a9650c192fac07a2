"""Drawing images with the base model or with a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from seedpo.data.images import to_pil
from seedpo.errors import ConfigError
from seedpo.evaluation.image_evaluation import ImageEvaluation, save_sheet
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.models.catalogue import MODELS
from seedpo.scenes.shipped import warn_of_unknown_words
from seedpo.training.run import build_policy, load_prompts, resolve_config
from seedpo.training.run_folder import RunFolder

ENLARGED = 256
"""Images narrower than this are enlarged by a whole factor on the sheet, so that they can be looked at."""


def sample_images(
    *,
    prompt: Sequence[str],
    prompts: str | None,
    run: Path | None,
    model: str,
    images_per_prompt: int,
    num_inference_steps: int,
    guidance_scale: float,
    seed: int,
    out: Path,
) -> list[Path]:
    """Writes one PNG per image, ``sheet.png`` with all of them, and ``index.json``.

    Args:
        prompt: prompts written out.
        prompts: a prompt set or text file to add.
        run: run folder whose trained weights are used; none: the base model.
        model: the model, where no run is given.
        images_per_prompt: initial latents per prompt; the same for every run.
        num_inference_steps: denoising steps of DDIM with eta 0.
        guidance_scale: classifier-free guidance.
        seed: seed of the initial latents.
        out: folder for the images.

    Raises:
        ConfigError: if there is no prompt.
        RunFolderError: if ``run`` is no run folder.
        DataError: if it holds no trained weights.
    """
    config = resolve_config("diffusion-dpo", {"model": model}) if run is None else RunFolder.open(run).read_config()
    embedded = config.model in MODELS
    texts = list(prompt) + (load_prompts(prompts, embedded=embedded) if prompts else [])
    if not texts:
        raise ConfigError("there is nothing to draw; give --prompt 'a large red circle on a gray background'")
    if embedded:
        warn_of_unknown_words(prompt)
    policy = build_policy(config)
    if run is not None:
        policy.load(RunFolder.open(run).weights(config))
    settings = EvaluationConfig(
        images_per_prompt=images_per_prompt,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        seed=seed,
    )
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    samples = ImageEvaluation(texts, config=settings, rewards={}, metrics={}).generate(policy)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for row, images in enumerate(samples.images):
        for column, image in enumerate(images):
            path = out / f"{row:03d}-{column:02d}.png"
            to_pil(image).save(path)
            files.append(path)
    factor = max(1, ENLARGED // samples.images.shape[-1])
    enlarged = samples.images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    save_sheet(enlarged, out / "sheet.png")
    index = [{"file": file.name, "prompt": texts[number // images_per_prompt]} for number, file in enumerate(files)]
    (out / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return files
