"""What is evaluated: runs, pipelines and LoRA files, each under a label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from seedpo.errors import ConfigError
from seedpo.evaluation.controls import PLAIN, SamplingControl
from seedpo.files import exists, files_below, sha256
from seedpo.models.catalogue import MODELS, loading_keys
from seedpo.models.denoiser import PipelineDenoiser, load_denoiser
from seedpo.models.gpu import usual_precision
from seedpo.models.loading import tensor_names
from seedpo.models.lora_file import lora_in
from seedpo.models.names import looks_like_a_model
from seedpo.models.settings import ModelSettings
from seedpo.models.trained import load_trained
from seedpo.registry import unknown
from seedpo.run_folders import RunFolder
from seedpo.settings import as_precision

_LABEL = re.compile(r"(?P<label>[\w][\w.+-]*)=(?P<place>.+)")
_NOT_IN_LABELS = re.compile(r"[^\w.+-]+")

Kind = Literal["run", "base", "pipeline", "lora"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model to be evaluated.

    Attributes:
        label: names its folder of images and its rows.
        place: as the user wrote it, without the label.
        kind: trained policy of a run, the untrained model of a run, a pipeline, or a LoRA on a pipeline.
        run: the run folder, if there is one.
        settings: the model and how it is loaded; of a LoRA, the model that it was trained on.
        weights: folder (run) or file (LoRA) with trained weights; ``None`` for untrained models.
        control: what is done to the model at sampling.
        best_by: name of the reward that picks, of controls that draw several images for each.
    """

    label: str
    place: str
    kind: Kind
    run: Path | None = None
    settings: ModelSettings
    weights: Path | None = None
    control: SamplingControl = PLAIN
    best_by: str | None = None

    @property
    def is_trained(self) -> bool:
        """Whether there is a model before training that differs."""
        return self.kind in ("run", "lora")

    def under(self, control: SamplingControl, *, best_by: str | None = None) -> Target:
        """The same model under a control, whose name is added to the label.

        Args:
            control: what is done at sampling.
            best_by: name of the reward that picks, of controls that draw several images for each.

        Raises:
            ConfigError: if the control needs a trained model and this is none, or there is no reward to pick.
        """
        if control.needs_training and not self.is_trained:
            raise ConfigError(
                f"target {self.place} is not trained, so that {control.name} has no two models to stand between; name "
                "a run, or a LoRA with --model"
            )
        if control.best_of > 1 and best_by is None:
            raise ConfigError(f"{control.name} needs a reward that picks; name one with --best-by or --rewards")
        label = "-".join(filter(None, [self.label, control.name]))
        return replace(self, label=label, control=control, best_by=best_by if control.best_of > 1 else None)

    def record(self) -> dict[str, Any]:
        """What its images depend on, for ``evaluation.yaml``; trained weights by their hash."""
        return {
            "target": self.place,
            "kind": self.kind,
            "model": self.settings.model,
            "weights": None if self.weights is None else _digest(self.weights),
            "mixed_precision": self.settings.mixed_precision,
            "resolution": self.settings.resolution,
            "vae": self.settings.vae,
            **{name: value for name, value in self._prompt_choices().items() if value is not None},
            **self.control.changes(),
            **({} if self.best_by is None else {"best_by": self.best_by}),
        }

    def _prompt_choices(self) -> dict[str, float | None]:
        """What is set of how prompts are embedded; families without the choice refuse it."""
        return {
            "max_sequence_length": self.settings.max_sequence_length,
            "embedded_guidance": self.settings.embedded_guidance,
        }


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What is said of targets that are no runs.

    Attributes:
        model: base model of LoRA files.
        vae: autoencoder in place of their own.
        resolution: height and width of images.
        max_sequence_length: tokens of the longest text encoder, of models that leave the choice.
        embedded_guidance: of models that take guidance as an input.
        mixed_precision: of all targets; ``None`` for a run's own, or for what a run of another model would use.
    """

    model: str | None = None
    vae: str | None = None
    resolution: int | None = None
    max_sequence_length: int | None = None
    embedded_guidance: float | None = None
    mixed_precision: str | None = None


def parse_targets(texts: Sequence[str], options: ModelOptions) -> list[Target]:
    """Targets as a user writes them: ``[LABEL=]RUN[@base|@STEP]``, a pipeline, or a LoRA.

    Raises:
        ConfigError: if one is of no such kind or lacks its base model, or two share a label.
        RunFolderError: if a run has no such weights.
        DataError: if a file cannot be read.
    """
    if not texts:
        raise ConfigError("there is nothing to evaluate; name a run folder, a pipeline or a LoRA")
    return _distinct([parse_target(text, options) for text in texts])


def with_controls(
    targets: Sequence[Target], controls: Sequence[SamplingControl], *, best_by: str | None = None
) -> list[Target]:
    """Each target as it is, followed by itself under each control; strength and mixing pass over untrained models.

    Args:
        targets: of :func:`parse_targets`.
        controls: what is done at sampling.
        best_by: name of the reward that picks, of controls that draw several images for each.

    Raises:
        ConfigError: if a control applies to no target, has no reward to pick, or two targets share a label.
    """
    for control in controls:
        if control.needs_training and not any(target.is_trained for target in targets):
            targets[0].under(control)  # raises
    points = [
        point
        for target in targets
        for point in (
            target,
            *(
                target.under(control, best_by=best_by)
                for control in controls
                if control != PLAIN and (target.is_trained or not control.needs_training)
            ),
        )
    ]
    return _distinct(points)


def _distinct(targets: Sequence[Target]) -> list[Target]:
    """The targets, if no two share a label."""
    seen: dict[str, Target] = {}
    for target in targets:
        # Labels are names of folders, and some file systems do not tell capitals from small letters.
        other = seen.setdefault(target.label.lower(), target)
        if other is not target:
            raise ConfigError(
                f"two targets have the label {target.label}: {other.place} and {target.place}; give one another with "
                f"NAME={target.place}"
            )
    return list(targets)


def parse_target(text: str, options: ModelOptions) -> Target:
    """One target; see :func:`parse_targets`."""
    match = None if exists(text) else _LABEL.fullmatch(text)
    label, place = (match["label"], match["place"]) if match else (None, text)
    path, at, what = _split(place)
    if (path / "config.yaml").is_file():
        return _run(place, path, what if at else None, label, options)
    lora = _lora_file(Path(place))
    if lora is not None:
        return _lora(place, lora, label, options)
    if place in MODELS or looks_like_a_model(place):
        return Target(
            label=label or _label(place),
            place=place,
            kind="pipeline",
            settings=_settings(place, options),
        )
    raise unknown(
        "target", place, MODELS.names(), also="; or a run folder, RUN@base, RUN@STEP, a pipeline's folder, "
        "owner/name on the hub, or a LoRA with --model"
    )  # fmt: skip


def _split(place: str) -> tuple[Path, str, str]:
    if exists(place):
        return Path(place), "", ""
    head, at, what = place.rpartition("@")
    return (Path(head), at, what) if at else (Path(place), "", "")


def _run(place: str, path: Path, what: str | None, label: str | None, options: ModelOptions) -> Target:
    folder = RunFolder.open(path)
    settings = folder.settings(ModelSettings)
    precision = as_precision(options.mixed_precision or settings.mixed_precision)
    settings = settings.model_copy(update={"mixed_precision": precision})
    common: dict[str, Any] = {"place": place, "run": path, "settings": settings}
    name = label or _label(path.resolve().name)
    if what == "base":
        start = run_start(folder, settings)
        return Target(label=name if label else f"{name}-base", kind="base", weights=start, **common)
    weights = _weights(folder, settings, what)
    return Target(label=name if label or what is None else f"{name}-{what}", kind="run", weights=weights, **common)


def run_start(folder: RunFolder, settings: ModelSettings) -> Path | None:
    """The folder of the LoRA that a run continued; ``None`` if it began with the base model."""
    start = folder.initial_lora
    return start if settings.initial_lora is not None and start.is_dir() else None


def _weights(folder: RunFolder, settings: ModelSettings, step: str | None) -> Path:
    if step is not None and not step.isdecimal():
        raise ConfigError(f"target {folder.path}@{step}: write `base` or the step of a checkpoint after @")
    return folder.trained_weights(settings.weights_folder, step=None if step is None else int(step))


def _lora_file(path: Path) -> Path | None:
    if path.is_dir():
        return lora_in(path)
    named = path.is_file() and path.suffix == ".safetensors"
    return path if named and any(re.search("lora|lokr|hada_", name) for name in tensor_names(path)) else None


def _lora(place: str, file: Path, label: str | None, options: ModelOptions) -> Target:
    if options.model is None:
        raise ConfigError(f"target {place} is a LoRA; name the model that it was trained on with --model")
    return Target(
        label=label or _label(place),
        place=place,
        kind="lora",
        settings=_settings(options.model, options),
        weights=file,
    )


def _label(place: str) -> str:
    """A name for a folder that reminds of the target."""
    path = Path(place)
    words = path.resolve().name if path.exists() else place
    return _NOT_IN_LABELS.sub("-", words.removesuffix(".safetensors")).strip("-.") or "target"


def _settings(model: str, options: ModelOptions) -> ModelSettings:
    usual = {} if model in MODELS else usual_precision()
    chosen = {"max_sequence_length": options.max_sequence_length, "embedded_guidance": options.embedded_guidance}
    return ModelSettings(
        model=model,
        vae=options.vae,
        resolution=options.resolution,
        mixed_precision=as_precision(options.mixed_precision or usual.get("mixed_precision", "no")),
        **{**loading_keys(model), **{key: value for key, value in chosen.items() if value is not None}},
    )


def _digest(weights: Path) -> str:
    """SHA-256 of the weights: of the one file that they are, or of the hashes of several."""
    if weights.is_file():
        return sha256(weights)
    files = [path for path in files_below(weights) if path.suffix == ".safetensors"]
    return "+".join(sha256(path) for path in files)


def load_target(target: Target) -> PipelineDenoiser:
    """The target's model, on the CPU; one that knows the model before training where the control needs that.

    Raises:
        DataError: if it cannot be loaded.
    """
    if target.control.needs_training:
        is_lora = target.kind == "lora"
        return load_trained(
            target.settings,
            weights=None if is_lora else target.weights,
            start=None if target.run is None else run_start(RunFolder.open(target.run), target.settings),
            lora=target.weights if is_lora else None,
        )
    if target.kind == "lora":
        return load_denoiser(target.settings, lora=target.weights)
    return load_denoiser(target.settings, weights=target.weights)
