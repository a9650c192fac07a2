"""Drawing images with the base model or with a trained run: one set of them, or a grid of controls x steps."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seedpo.core.sampling import Sampling
from seedpo.data.images.pixels import to_pil
from seedpo.data.prompts.reading import load_prompts
from seedpo.errors import ConfigError
from seedpo.evaluation.control_grid import Cell, save_grid
from seedpo.evaluation.controls import PLAIN, SamplingControl
from seedpo.evaluation.drawing import choice_by, controlled, draw_samples, picking_reward, warn_of_cut_prompts
from seedpo.evaluation.settings import Drawing, EvaluationConfig
from seedpo.evaluation.sheets import save_sheet
from seedpo.evaluation.targets import run_start
from seedpo.files import write_text
from seedpo.metrics.records import Samples
from seedpo.models.catalogue import MODELS, loading_keys, warn_of_unknown_words
from seedpo.models.denoiser import PipelineDenoiser, load_denoiser
from seedpo.models.gpu import usual_precision
from seedpo.models.loading import lora_file
from seedpo.models.samplers import denoise_with
from seedpo.models.settings import ModelSettings
from seedpo.models.trained import load_trained
from seedpo.run_folders import RunFolder
from seedpo.settings import build_config

ENLARGED = 256
"""Images narrower than this are enlarged by a whole factor on the sheet, so that they can be looked at."""

PIXELS_AT_A_TIME = 2**21
"""Images drawn at a time have at most this many pixels together (8 of 512 px), or are one."""

MOST_AT_A_TIME = 64
"""Images drawn at a time, however small they are."""

ROWS = tuple(SamplingControl(strength=strength) for strength in (0.0, 0.5, 1.0))
"""Of a grid, where no control is given: the base model, half way, the trained model."""


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What is drawn, and how.

    Attributes:
        prompt: prompts written out.
        prompts: a prompt set or a file of prompts to add.
        run: run folder whose trained weights are used; ``None`` for the base model.
        model: the model, where no run is given.
        lora: file or folder of a LoRA of any trainer, on ``model``.
        images: of each prompt; their initial latents are the same for every run.
        num_inference_steps: denoising steps; ``None``: those of the run's evaluations, or the model's usual ones.
        guidance_scale: classifier-free guidance; ``None`` as for the steps.
        negative_prompt: what guidance leads away from.
        size: height and width in pixels; ``None`` for those of the run or the model.
        sampler: name of a sampler of the model's family; ``None`` for its own, without noise.
        max_sequence_length: tokens of the longest text encoder, of models that leave the choice.
        embedded_guidance: of models that take guidance as an input.
        seed: of the initial latents.
        best_by: name of the reward that picks, of controls that draw several images for each.
    """

    prompt: Sequence[str] = ()
    prompts: str | None = None
    run: Path | None = None
    model: str = "scenes"
    lora: str | None = None
    images: int = 4
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str = ""
    size: tuple[int, int] | None = None
    sampler: str | None = None
    max_sequence_length: int | None = None
    embedded_guidance: float | None = None
    seed: int = 0
    best_by: str | None = None

    def texts(self) -> list[str]:
        """All prompts.

        Raises:
            ConfigError: if there is none.
        """
        texts = list(self.prompt) + (load_prompts(self.prompts) if self.prompts else [])
        if not texts:
            raise ConfigError("there is nothing to draw; give --prompt 'a large red circle on a gray background'")
        return texts

    def settings(self) -> ModelSettings:
        """The model, and how it is loaded.

        Raises:
            ConfigError: if a LoRA is added to a run.
            RunFolderError: if ``run`` is not a run folder.
        """
        chosen = {"max_sequence_length": self.max_sequence_length, "embedded_guidance": self.embedded_guidance}
        said = {key: value for key, value in chosen.items() if value is not None}
        if self.run is not None:
            if self.lora is not None:
                raise ConfigError(
                    "--lora is added to --model, and a run has its own weights; give one of --run and --lora"
                )
            return RunFolder.open(self.run).settings(ModelSettings).model_copy(update=said)
        usual = {} if self.model in MODELS else usual_precision()
        return build_config(ModelSettings, usual, loading_keys(self.model), {"model": self.model, **said})


def sample_images(
    request: SampleRequest, out: Path, *, step: int | None = None, control: SamplingControl = PLAIN
) -> list[Path]:
    """Writes one PNG per image, ``sheet.png`` with all of them, and ``index.json``.

    Args:
        request: what is drawn.
        out: folder for the images.
        step: of a checkpoint of the run; ``None`` for its end.
        control: what is done to the model at sampling.

    Returns:
        The files of single images, prompt by prompt.

    Raises:
        ConfigError: if there is no prompt, or a size, sampler, step or control does not fit.
        RunFolderError: if ``run`` is not a run folder, or has no such step.
        DataError: if it holds no trained weights.
    """
    if request.run is None and step is not None:
        raise ConfigError("--step chooses a checkpoint of a run; give --run")
    texts = request.texts()
    ((_, samples),) = _cells(request, texts, [step], [control])
    return _save(samples, texts, out)


def sample_grid(
    request: SampleRequest, out: Path, *, steps: Sequence[int] = (), controls: Sequence[SamplingControl] = ROWS
) -> list[Cell]:
    """Draws the same prompts and latents at several steps of a run and under several controls.

    Writes ``grid.png`` (a row for each control, a column for each step), ``grid.csv`` (what each cell is) and, for
    each cell, a folder as :func:`sample_images` writes it.

    Args:
        request: what is drawn; needs a run or a LoRA.
        out: folder for all of it.
        steps: of checkpoints; all that the run has if empty. A LoRA has none.
        controls: what is done to the model at sampling.

    Raises:
        ConfigError: as :func:`sample_images`.
        RunFolderError: if the run has no such checkpoint.
    """
    if request.run is None and request.lora is None:
        raise ConfigError("a grid is of controls and steps of a run, or of controls of a LoRA; give --run or --lora")
    if request.run is None and steps:
        raise ConfigError("--step chooses checkpoints of a run; leave it out with --lora")
    texts = request.texts()
    there = [] if request.run is None else RunFolder.open(request.run).checkpoint_steps()
    columns: list[int | None] = [*(steps or there)] or [None]
    cells = []
    for (step, control), samples in _cells(request, texts, columns, controls):
        name = f"{'end' if step is None else f'step-{step:06d}'}-{control.name or 'strength-1'}"
        _save(samples, texts, out / name)
        cells.append(Cell(folder=name, step=step, control=control, images=samples.images))
    save_grid(cells, texts, out)
    return cells


def _cells(
    request: SampleRequest, texts: Sequence[str], steps: Sequence[int | None], controls: Sequence[SamplingControl]
) -> Iterator[tuple[tuple[int | None, SamplingControl], Samples]]:
    """The images of each step and control; every step is loaded once."""
    settings = request.settings()
    needs_training = any(control.needs_training for control in controls)
    if needs_training and request.run is None and request.lora is None:
        raise ConfigError(
            "--strength and --mixing stand between the base model and a trained one; give --run or --lora"
        )
    _check_picks(request, controls)
    warn_of_unknown_words(settings.model, [*texts, *filter(None, [request.negative_prompt])])
    lora = None if request.lora is None else lora_file(request.lora)
    for step, weights in [(step, _weights(request, settings, step)) for step in steps]:
        denoiser: PipelineDenoiser
        if needs_training:
            start = None if request.run is None else run_start(RunFolder.open(request.run), settings)
            denoiser = load_trained(settings, weights=weights, start=start, lora=lora, size=request.size)
        else:
            denoiser = load_denoiser(settings, weights=weights, lora=lora, size=request.size)
        denoiser.to("cuda" if torch.cuda.is_available() else "cpu")
        warn_of_cut_prompts(denoiser, [*texts, *filter(None, [request.negative_prompt])])
        for control in controls:
            yield (step, control), _drawn(request, denoiser, texts, control)


def _check_picks(request: SampleRequest, controls: Sequence[SamplingControl]) -> None:
    """Best of n and the reward that picks need each other.

    Raises:
        ConfigError: if one is there without the other, or more images have no latents of their own.
    """
    most = max(control.best_of for control in controls)
    if most > 1 and request.best_by is None:
        raise ConfigError(f"--best-of {most} needs a reward that picks; name one with --best-by")
    if most == 1 and request.best_by is not None:
        raise ConfigError(f"--best-by {request.best_by} has nothing to pick from; give --best-of, or leave it out")


def _weights(request: SampleRequest, settings: ModelSettings, step: int | None) -> Path | None:
    if request.run is None:
        return None
    folder = RunFolder.open(request.run)
    return folder.path / settings.weights_folder if step is None else folder.trained_weights("", step=step)


def _drawn(
    request: SampleRequest, denoiser: PipelineDenoiser, texts: Sequence[str], control: SamplingControl
) -> Samples:
    sampling = usual_sampling(request, denoiser)
    denoiser.require_guidance(sampling.guidance_scale, key="--guidance")
    if request.negative_prompt and sampling.guidance_scale == 1:
        reason = denoiser.family.unguided(denoiser.pipeline)
        fix = "give a --guidance above 1, or leave the prompt out" if reason is None else f"{reason}; leave it out"
        raise ConfigError(f"guidance 1 uses no negative prompt; {fix}")
    height, width = denoiser.image_size
    drawing = Drawing(
        images=request.images,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        seed=request.seed,
        batch_size=max(1, min(MOST_AT_A_TIME, PIXELS_AT_A_TIME // (height * width))),
    )
    picks = None if request.best_by is None else picking_reward(request.best_by, denoiser)
    with controlled(denoiser, control) as predictor:
        return draw_samples(
            predictor,
            texts,
            drawing,
            choice_by(picks, control),
            negative_prompt=request.negative_prompt,
            denoise=denoise_with(denoiser, request.sampler, sampling, predictor=predictor),
        )


def usual_sampling(request: SampleRequest, denoiser: PipelineDenoiser) -> Sampling:
    """Steps and guidance: those of the request, else of the run's evaluations, else the model's usual ones.

    The usual ones of a pipeline are its family's, or the defaults of its class in diffusers; those of a registered
    model, of its row. A model that cannot be guided is not.
    """
    usual: Any
    family = denoiser.family
    if request.run is not None:
        usual = RunFolder.open(request.run).settings(EvaluationConfig, "evaluation")
    elif request.model in MODELS:
        usual = MODELS[request.model]
    else:
        defaults = inspect.signature(family.pipeline.__call__).parameters
        own_steps, own_guidance = (defaults[name].default for name in ("num_inference_steps", "guidance_scale"))
        guided = family.unguided(denoiser.pipeline) is None
        usual_guidance = own_guidance if family.usual_guidance is None else family.usual_guidance
        usual = Sampling(
            num_inference_steps=own_steps if family.usual_steps is None else family.usual_steps,
            guidance_scale=usual_guidance if guided else 1.0,
        )
    steps, guidance = request.num_inference_steps, request.guidance_scale
    return Sampling(
        num_inference_steps=usual.num_inference_steps if steps is None else steps,
        guidance_scale=usual.guidance_scale if guidance is None else guidance,
    )


def _save(samples: Samples, texts: Sequence[str], out: Path) -> list[Path]:
    """The files of one set of images."""
    out.mkdir(parents=True, exist_ok=True)
    files, index = [], []
    for row, images in enumerate(samples.images):
        for column, image in enumerate(images):
            path = out / f"{row:03d}-{column:02d}.png"
            to_pil(image).save(path)
            files.append(path)
            index.append({"file": path.name, "prompt": texts[row]})
    factor = max(1, ENLARGED // samples.images.shape[-1])
    save_sheet(samples.images.repeat_interleave(factor, -1).repeat_interleave(factor, -2), out / "sheet.png")
    write_text(out / "index.json", json.dumps(index, indent=1))
    return files
