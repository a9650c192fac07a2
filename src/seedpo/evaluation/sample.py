"""Drawing images with the base model or with a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from seedpo.data.images import to_pil
from seedpo.data.prompts import load_prompts
from seedpo.errors import ConfigError
from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.settings import Drawing
from seedpo.evaluation.sheets import save_sheet
from seedpo.models.catalogue import MODELS
from seedpo.models.denoiser import load_denoiser
from seedpo.models.precision import usual_precision
from seedpo.models.settings import ModelSettings
from seedpo.run_folders import RunFolder
from seedpo.scenes.shipped import warn_of_unknown_words
from seedpo.settings import build_config

ENLARGED = 256
"""Images narrower than this are enlarged by a whole factor on the sheet, so that they can be looked at."""

BATCH_SIZE = 64
"""Images drawn at a time."""


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
        run: run folder whose trained weights are used; ``None`` for the base model.
        model: the model, where no run is given.
        images_per_prompt: initial latents per prompt; the same for every run.
        num_inference_steps: denoising steps of DDIM with eta 0.
        guidance_scale: classifier-free guidance.
        seed: seed of the initial latents.
        out: folder for the images.

    Raises:
        ConfigError: if there is no prompt.
        RunFolderError: if ``run`` is not a run folder.
        DataError: if it holds no trained weights.
    """
    if run is None:
        usual = {} if model in MODELS else usual_precision()
        settings, weights = build_config(ModelSettings, usual, {"model": model}), None
    else:
        settings = RunFolder.open(run).settings(ModelSettings)
        weights = run / settings.weights_folder
    embedded = settings.model in MODELS
    texts = list(prompt) + (load_prompts(prompts) if prompts else [])
    if not texts:
        raise ConfigError("there is nothing to draw; give --prompt 'a large red circle on a gray background'")
    if embedded:
        warn_of_unknown_words(texts)
    denoiser = load_denoiser(settings, weights=weights)
    drawing = Drawing(
        images=images_per_prompt,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        seed=seed,
        batch_size=BATCH_SIZE,
    )
    denoiser.to("cuda" if torch.cuda.is_available() else "cpu")
    samples = draw_samples(denoiser, texts, drawing)
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
