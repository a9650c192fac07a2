"""The figures of the embedded world's model cards, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline

from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.image_evaluation import interval_figures
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.metrics.named import build_prompt_metric
from seedpo.metrics.records import Samples
from seedpo.models.catalogue import MODELS, NamedModel
from seedpo.models.loading import load_pipeline
from seedpo.models.policy import PipelinePolicy
from seedpo.scenes.assets import ASSETS
from seedpo.scenes.drawing import draw, sample_scenes
from seedpo.scenes.metrics import free_variances
from seedpo.scenes.oracle import FREE, NAMED, read_images
from seedpo.scenes.prompts import EVALUATION_PROMPTS
from seedpo.training.configuration import resolve_reward_config
from seedpo.training.reward_run import measure_reward


def measure(assets: Path | None = None, out: Path | None = None, *, images_per_prompt: int = 8) -> str:
    """Measures autoencoder, pipelines and scorer on held-out prompts and pairs.

    Args:
        assets: folder with ``pipeline``, ``flow`` and ``scorer``; the shipped ones if not given.
        out: JSON file to write.
        images_per_prompt: images of each of the 64 held-out prompts.

    Returns:
        The figures as indented JSON.
    """
    assets = assets or ASSETS
    policy = PipelinePolicy(load_pipeline(assets / "pipeline"))
    flow = PipelinePolicy(load_pipeline(assets / "flow"), **MODELS["scenes-flow"].loading)
    figures = {
        "autoencoder": autoencoder_figures(policy),
        "pipeline": pipeline_figures(policy, MODELS["scenes"], images_per_prompt=images_per_prompt),
        "flow": pipeline_figures(flow, MODELS["scenes-flow"], images_per_prompt=images_per_prompt),
        "flow_by_plain_diffusers": plain_figures(assets / "flow", images_per_prompt=images_per_prompt),
        "scorer": scorer_figures(assets),
        "megabytes": round(sum(file.stat().st_size for file in assets.rglob("*.safetensors")) / 1e6, 2),
    }
    text = json.dumps(figures, indent=2)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    return text


def autoencoder_figures(policy: PipelinePolicy) -> dict[str, Any]:
    """What survives encoding and decoding of drawings of the held-out prompts."""
    prompts = list(EVALUATION_PROMPTS) * 8
    drawings = draw(sample_scenes(prompts, generator=torch.Generator().manual_seed(1)))
    reconstructions = torch.cat([policy.decode(policy.encode_images(part)) for part in torch.split(drawings, 64)])
    readings = read_images(reconstructions, prompts)
    error = (reconstructions - drawings).square().mean()
    return {
        "drawings": len(prompts),
        "psnr_db": round(float(-10.0 * error.log10()), 2),
        "attributes_right": round(readings.correct.float().mean().item(), 4),
        "images_with_all_attributes_right": round(readings.correct.all(1).float().mean().item(), 4),
    }


def pipeline_figures(policy: PipelinePolicy, row: NamedModel, *, images_per_prompt: int) -> dict[str, Any]:
    """What a pipeline draws for the held-out prompts, at the steps and the guidance of its row."""
    config = EvaluationConfig(
        guidance_scale=row.guidance_scale,
        num_inference_steps=row.num_inference_steps,
        images_per_prompt=images_per_prompt,
        seed=7,
    )
    return drawn_figures(draw_samples(policy, EVALUATION_PROMPTS, config.drawing))


def plain_figures(folder: Path, *, images_per_prompt: int, batch_size: int = 64) -> dict[str, Any]:
    """What the call of diffusers draws of the same prompts by flow matching, with its own number of zero tokens."""
    row = MODELS["scenes-flow"]
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    texts = [prompt for prompt in EVALUATION_PROMPTS for _ in range(images_per_prompt)]
    generator = torch.Generator().manual_seed(7)
    images = [
        pipeline(
            texts[start : start + batch_size],
            num_inference_steps=row.num_inference_steps,
            guidance_scale=row.guidance_scale,
            generator=generator,
            output_type="pt",
        ).images
        for start in range(0, len(texts), batch_size)
    ]
    drawn = torch.cat(images).view(len(EVALUATION_PROMPTS), images_per_prompt, *images[0].shape[1:])
    return drawn_figures(Samples(images=drawn, prompts=EVALUATION_PROMPTS))


def drawn_figures(samples: Samples) -> dict[str, Any]:
    """How right, true and varied images of the held-out prompts are."""
    metrics = {name: build_prompt_metric(name) for name in ("truth", "attribute_accuracy", "residual", "free_spread")}
    images, prompts = samples.flat()
    readings = read_images(images, prompts)
    spread = free_variances(samples).nanmean(0).sqrt().tolist()
    return {
        "images": len(images),
        "images_with_all_attributes_right": round(readings.correct.all(1).float().mean().item(), 4),
        "attributes_right": {
            name: round(share, 4) for name, share in zip(NAMED, readings.correct.float().mean(0).tolist(), strict=True)
        },
        **{
            name: round(interval_figures(name, metric.per_prompt(samples), seed=0, finish=metric.facts.finish)[name], 4)
            for name, metric in metrics.items()
        },
        "spread_of_free_attributes": {name: round(value, 3) for name, value in zip(FREE, spread, strict=True)},
        "vividness_mean": round(readings.vividness.mean().item(), 3),
    }


def scorer_figures(assets: Path) -> dict[str, Any]:
    """Share of held-out pairs in which the scorer agrees with the annotator's noisy label, by time step."""
    places = {"start": str(assets / "scorer"), "model": str(assets / "pipeline")}
    figures = measure_reward(resolve_reward_config(changes=places, bfloat16=False))
    shares = {name: value for name, value in figures.items() if "t=" in name and not name.endswith(("/low", "/high"))}
    return {
        "pairs": int(figures["held_out_pairs"]),
        "accuracy_by_timestep": {name.partition("t=")[2]: round(value, 4) for name, value in shares.items()},
    }
