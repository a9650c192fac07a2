"""What ``seedpo frontier`` draws and scores first: checkpoints of any trainer, and free baselines of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seedpo.cli.shared import say
from seedpo.errors import ConfigError, DataError
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.settings import Drawing, EvaluationConfig
from seedpo.models.lora_file import lora_in
from seedpo.reports.contents import find_places, kind
from seedpo.reports.frontier.reading import spot_of
from seedpo.reports.frontier.score_tables import ENDINGS
from seedpo.run_folders import RunFolder

PIPELINE = "model_index.json"
"""By which a folder is known as a pipeline of diffusers."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is drawn and scored.

    Attributes:
        model: base model of the checkpoints, which stands at step 0 of each.
        rewards, metrics: that are measured of checkpoints.
        prompts: a set or a file.
        num_prompts: from its head; ``None`` for all.
        drawing: how images of checkpoints are drawn.
        controls: free baselines; of runs as their own evaluations draw.
    """

    model: str | None
    rewards: Sequence[str]
    metrics: Sequence[str]
    prompts: str
    num_prompts: int | None
    drawing: Drawing
    controls: Sequence[SamplingControl] = field(default_factory=tuple)


def readable_places(names: Sequence[str], out: Path, drawn: Drawn) -> list[Path]:
    """Runs, evaluations and score tables, after what is none of these was drawn and scored.

    Args:
        names: as the user writes them.
        out: checkpoints are evaluated in ``out/evaluation``, free baselines of a run in
            ``out/free/NAME``, see :func:`own_names`.
        drawn: what is drawn.

    Raises:
        SeedpoError: if a name is that of nothing, or a checkpoint cannot be drawn from.
    """
    places = [Path(name) for name in names if is_readable(Path(name))]
    checkpoints = [part for name in names if not is_readable(Path(name)) for part in checkpoints_in(name)]
    made = []
    if checkpoints:
        if not drawn.rewards:
            raise ConfigError(
                f"{checkpoints[0]} is no run folder, evaluation or score table; if it is a checkpoint to draw from, "
                "name --rewards to score its images, and --model if it is a LoRA"
            )
        made.append(_evaluate_checkpoints(checkpoints, out / "evaluation", drawn))
    if drawn.controls:
        folders = [place for place in places if place.suffix.lower() not in ENDINGS or place.is_dir()]
        runs = find_places(folders)[0]["run"] if folders else []
        if not runs and not checkpoints:
            raise ConfigError(
                "--strength, --mixing and --best-of draw from models; name a run folder or a checkpoint, or write such "
                "rows into the score table"
            )
        made += [_evaluate_free(run, out / "free" / name, drawn) for name, run in own_names(runs).items()]
    return [*places, *made]


def own_names(runs: Sequence[Path]) -> dict[str, Path]:
    """Runs by the names of their folders; a name that others have, too, begins with folders above, as far as needed."""
    paths = list(dict.fromkeys(run.resolve() for run in runs))
    named = {}
    for path in paths:
        others = [other.parts for other in paths if other != path]
        depth = next(
            depth
            for depth in range(1, len(path.parts) + 1)
            if all(path.parts[-depth:] != other[-depth:] for other in others)
        )
        named["-".join(part.strip("/") for part in path.parts[-depth:])] = path
    return named


def is_readable(place: Path) -> bool:
    """Whether a place can be read as it is: a score table, a run, an evaluation, or a folder of these."""
    if place.suffix.lower() in ENDINGS and not place.is_dir():
        return True
    return place.is_dir() and (kind(place) is not None or any(kind(child) for child in place.glob("*/")))


def checkpoints_in(name: str) -> list[str]:
    """A checkpoint, or those in a folder of them; a name that is neither is given back as it is."""
    folder = Path(name)
    if not folder.is_dir() or _is_checkpoint(folder):
        return [name]
    inner = [child for child in folder.iterdir() if child.suffix == ".safetensors" or _is_checkpoint(child)]
    steps = {child: spot_of(child.name, {"kind": "lora", "target": str(child)}).step or 0 for child in inner}
    return [str(child) for child in sorted(inner, key=lambda child: (steps[child], child.name))] or [name]


def _is_checkpoint(folder: Path) -> bool:
    if (folder / PIPELINE).is_file():
        return True
    try:
        return folder.is_dir() and lora_in(folder) is not None
    except DataError:  # several adapters below it: a folder of checkpoints
        return False


def _labelled(place: str) -> str:
    """The checkpoint with a label that says its run, seed and step, where its name does and it has none."""
    if "=" in place and not Path(place).exists():
        return place
    spot = spot_of(place, {"kind": "lora", "target": place})
    if spot.step is None:
        return place
    seed = [f"seed-{spot.seed}"] if spot.seed else []
    return f"{'-'.join([spot.label, *seed, f'step-{spot.step}'])}={place}"


def _evaluate_checkpoints(checkpoints: Sequence[str], out: Path, drawn: Drawn) -> Path:
    """Draws and scores the base model and every checkpoint as it is, then the last one of each run under controls."""
    from seedpo.evaluation.evaluate import Measures, evaluate
    from seedpo.evaluation.targets import ModelOptions

    base = [f"base={drawn.model}"] if drawn.model else []
    targets = [_labelled(place) for place in checkpoints]
    last: dict[tuple[str, int], tuple[int, str]] = {}
    for target in targets:
        label, _, place = target.rpartition("=")
        spot = spot_of(label or place, {"kind": "lora", "target": place})
        own = (spot.label, spot.seed)
        last[own] = max(last.get(own, (-1, "")), (10**12 if spot.step is None else spot.step, target))
    passes: list[tuple[list[str], Sequence[SamplingControl]]] = [([*base, *targets], ())]
    passes += [([*base, *(target for _, target in last.values())], drawn.controls)] if drawn.controls else []
    for names, controls in passes:
        evaluate(
            names,
            out,
            prompts=drawn.prompts,
            num_prompts=drawn.num_prompts,
            drawing=drawn.drawing,
            measures=Measures(rewards=drawn.rewards, metrics=drawn.metrics),
            options=ModelOptions(model=drawn.model),
            controls=controls,
        )
    say(f"evaluation: {out}", err=True)
    return out


def _evaluate_free(run: Path, out: Path, drawn: Drawn) -> Path:
    """Draws the end of a run under controls, as its own evaluations draw, and scores by what these measure."""
    from seedpo.evaluation.evaluate import Measures, evaluate
    from seedpo.evaluation.score import Scoring, read_definitions

    folder = RunFolder.open(run)
    config = folder.settings(EvaluationConfig, "evaluation")
    evaluate(
        [f"base={run}@base", f"end={run}"],
        out,
        prompts=config.prompts,
        num_prompts=config.num_prompts,
        drawing=config.drawing,
        measures=Measures(
            rewards=config.rewards,
            metrics=config.metrics,
            scoring=Scoring(definitions=read_definitions(folder.config_file), batch_size=config.batch_size),
        ),
        controls=drawn.controls,
    )
    say(f"free baselines: {out}", err=True)
    return out
