"""Run folders as they lie on disk: read leniently, with a note for everything that is missing or damaged."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seedpo.core.entropy import entropy_weights
from seedpo.documents import UNREADABLE, parse_json, read_json, read_yaml
from seedpo.errors import RunFolderError
from seedpo.files import read_bytes
from seedpo.methods.presets import METHODS
from seedpo.pages.wording import count
from seedpo.settings import dotted
from seedpo.training.settings import RunConfig
from seedpo.training.signs import values_by_prompt

Record = Mapping[str, float]
"""One line of the metrics: its finite numbers, ``step`` among them."""

DEFAULTS = dotted(RunConfig().tree())
"""Value of every dotted key where a run's configuration lacks it."""

MISSING = object()
REQUIRED = ("method", "beta", "gamma", "seed")
SHEET = re.compile(r"step-(\d+)\.png")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The sprite sheets of a run: row = prompt, column = initial latent.

    Attributes:
        tile: width and height of one image in pixels.
        columns: initial latents per prompt.
        prompts: prompt of each row.
        sheets: file of each evaluation step.
    """

    tile: int
    columns: int
    prompts: tuple[str, ...]
    sheets: Mapping[int, Path]


@dataclass(frozen=True, kw_only=True)
class PerPrompt:
    """A figure before it was averaged.

    Attributes:
        prompts: what was drawn.
        values: one for each prompt; NaN where there is none.
    """

    prompts: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it lies.
        name: how the page calls it; unique on the page.
        config: its resolved configuration.
        train: lines of training metrics by ascending step.
        evaluations: lines of evaluation metrics by ascending step.
        samples: its images, if there are any.
        environment: versions and machine.
        finished: step and seconds at the end; `None` while the run is not finished.
        notes: what is missing or damaged, one sentence each.
        alarms: the alarms that it raised while it was trained, one text each.
        per_prompt: by step and key, the figures of every prompt, where they were stored.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    train: tuple[Record, ...]
    evaluations: tuple[Record, ...]
    samples: Samples | None
    environment: Mapping[str, Any]
    finished: Mapping[str, float] | None
    notes: tuple[str, ...]
    alarms: tuple[str, ...] = ()
    per_prompt: Mapping[int, Mapping[str, PerPrompt]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The end of its path, by which folders of one name can be told apart."""
        return "/".join(self.folder.resolve().parts[-3:])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def weights(self) -> tuple[float, float]:
        """The weights (a, b) of the policy's and the reference's log-probability."""
        return _weights(self.config)

    def get(self, key: str) -> Any:
        """The value of a dotted key, or its default where the configuration of the run lacks it."""
        own: Any = self.config
        for part in key.split("."):
            own = own.get(part, MISSING) if isinstance(own, Mapping) else MISSING
        return DEFAULTS.get(key) if own is MISSING else own

    @property
    def last_step(self) -> int:
        """Last step that left a line in the metrics."""
        return int(max((record["step"] for record in (*self.train, *self.evaluations)), default=0))

    @property
    def rewards(self) -> tuple[str, ...]:
        """Names of the rewards that are measured; the first is the proxy."""
        named = tuple(self.config.get("evaluation", {}).get("rewards", ()))
        seen = {key.split("/")[1]: None for record in self.evaluations for key in record if key.startswith("reward/")}
        return named or tuple(seen)

    @property
    def proxy(self) -> str:
        """Key of the reward that stands for the trained one."""
        return f"reward/{self.rewards[0]}" if self.rewards else "reward"


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Reads run folders; one that is named twice is read once.

    Raises:
        RunFolderError: if one is not a run folder.
    """
    places = {folder.resolve(): folder for folder in map(Path, folders)}
    runs = [read_run(folder) for folder in places.values()]
    names = [run.name for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    return tuple(replace(run, name=run.place) if run.name in twice else run for run in runs)


def read_run(folder: Path) -> Run:
    """Reads one run folder.

    Raises:
        RunFolderError: if it has no usable ``config.yaml``.
    """
    config = _read_config(folder)
    train, evaluations, notes = read_metrics(folder / "metrics.jsonl")
    samples, sample_notes = _read_samples(folder / "samples")
    environment, environment_notes = read_mapping(folder / "environment.json")
    finished, finished_notes = read_mapping(folder / "finished.json")
    run = Run(
        folder=folder,
        name=folder.resolve().name,
        config=config,
        train=train,
        evaluations=evaluations,
        samples=samples,
        environment=environment or {},
        finished=finished,
        notes=(*notes, *sample_notes, *environment_notes, *finished_notes),
        alarms=_read_alarms(folder / "alarms.jsonl"),
        per_prompt=_read_per_prompt(samples),
    )
    if finished is not None:
        return run
    of = f" of {config['max_steps']}" if "max_steps" in config else ""
    return replace(run, notes=(f"It is not finished: its last line is of step {run.last_step}{of}.", *run.notes))


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.yaml"
    if not path.is_file():
        inner = sorted(child.parent for child in folder.glob("*/config.yaml"))
        hint = (
            f"name the runs inside it, for example {inner[0]}" if inner else "name a folder that `seedpo train` wrote"
        )
        what = "holds no config.yaml" if folder.is_dir() else "does not exist"
        raise RunFolderError(f"{folder} is not a run folder: it {what}; {hint}")
    try:
        config = read_yaml(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path} cannot be read as YAML ({reason}); restore it or leave this run out") from error
    if isinstance(config, dict) and "start" in config and "beta" not in config:
        raise RunFolderError(
            f"{folder} is the run of a preference model (`seedpo reward train`), not of a diffusion model; "
            "`seedpo report` shows its accuracy, other commands cannot use it as a run"
        )
    missing = [key for key in REQUIRED if not isinstance(config, dict) or key not in config]
    if missing:
        raise RunFolderError(
            f"{path} has no key {missing[0]!r}; it must be the resolved configuration that `seedpo train` wrote"
        )
    for key in ("beta", "gamma", "seed"):
        if isinstance(config[key], bool) or not isinstance(config[key], int | float):
            raise RunFolderError(f"{path}: {key} = {config[key]!r} is not a number; write one or leave this run out")
    try:
        _weights(config)
    except ValueError as error:
        raise RunFolderError(f"{path}: {error}; restore it or leave this run out") from error
    return dict(config)


def _weights(config: Mapping[str, Any]) -> tuple[float, float]:
    method = str(config.get("method"))
    return entropy_weights(
        float(config["beta"]),
        float(config["gamma"]),
        convention=config.get("entropy_convention", "relative"),
        kl_is_optional=method in METHODS and METHODS[method].kl_is_optional,
    )


def read_metrics(path: Path) -> tuple[tuple[Record, ...], tuple[Record, ...], list[str]]:
    """Lines of training and of evaluations by ascending step, and a note for what is damaged."""
    kinds: dict[str, dict[int, Record]] = {"train": {}, "evaluation": {}}
    damaged: list[int] = []
    not_finite: list[int] = []
    for row, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
            kind, step = kinds[record["kind"]], int(record["step"])
        except UNREADABLE:
            damaged.append(row)
            continue
        numbers = {
            key: float(value)
            for key, value in record.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        finite = {key: value for key, value in numbers.items() if math.isfinite(value)}
        if len(finite) < len(numbers):
            not_finite.append(step)
        kind[step] = finite  # a resumed run logs some steps again: the last line counts
    notes = []
    if damaged:
        notes.append(f"{count(len(damaged), 'line')} of metrics.jsonl cannot be read (first: line {damaged[0]}).")
    if not_finite:
        notes.append(
            f"{count(len(not_finite), 'line')} of metrics.jsonl hold values that are not finite (first: step "
            f"{min(not_finite)}); these values are left out."
        )
    if not kinds["evaluation"]:
        notes.append("It holds no evaluation.")
    train, evaluations = (tuple(kinds[kind][step] for step in sorted(kinds[kind])) for kind in ("train", "evaluation"))
    return train, evaluations, notes


def _read_alarms(path: Path) -> tuple[str, ...]:
    """The alarms as texts; a line that is half-written or damaged is skipped, since a resumed run writes all anew."""
    texts = []
    for line in filter(str.strip, _lines(path)):
        try:
            alarm = parse_json(line)
            texts.append(f"alarm {alarm['name']} at step {int(alarm['step'])}: {alarm['message']}.")
        except UNREADABLE:
            continue
    return tuple(texts)


def _lines(path: Path) -> list[str]:
    """The lines of a file; none where there is no such file."""
    if not path.is_file():
        return []
    try:
        return read_bytes(path, text=True).decode(errors="replace").splitlines()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); restore it or leave this run out") from error


def _read_samples(folder: Path) -> tuple[Samples | None, list[str]]:
    index, notes = read_mapping(folder / "index.json")
    if index is None:
        return None, notes or ["It holds no sample images."]
    try:
        tile, columns = int(index["tile"]), int(index["columns"])
        prompts = tuple(str(prompt) for prompt in index["prompts"])
    except UNREADABLE:
        return None, ["samples/index.json lacks tile, columns or prompts; its images are left out."]
    sheets = {int(match[1]): path for path in folder.glob("step-*.png") if (match := SHEET.fullmatch(path.name))}
    if not sheets or min(tile, columns, len(prompts)) < 1:
        return None, ["It holds no sample images."]
    return Samples(tile=tile, columns=columns, prompts=prompts, sheets=dict(sorted(sheets.items()))), []


def _read_per_prompt(samples: Samples | None) -> Mapping[int, Mapping[str, PerPrompt]]:
    """What lies beside the sheets as ``step-<step>.json``; a damaged file counts as none."""
    if samples is None:
        return {}
    return {
        step: {
            key: PerPrompt(prompts=samples.prompts, values=values)
            for key, values in values_by_prompt(sheet.with_suffix(".json")).items()
            if len(values) == len(samples.prompts)
        }
        for step, sheet in samples.sheets.items()
    }


def read_mapping(path: Path) -> tuple[Any, list[str]]:
    """A JSON object; `None` if the file is missing, or damaged, which gives a note."""
    if not path.is_file():
        return None, []
    try:
        content = read_json(path)
    except UNREADABLE:
        content = None
    return (content, []) if isinstance(content, dict) else (None, [f"{path.name} cannot be read as a JSON object."])
