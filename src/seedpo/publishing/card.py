"""The model card of a run: what was trained from what, how, and what was measured, as the hub's README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from seedpo.data.settings import DataSet, data_label
from seedpo.documents import UNREADABLE, read_json
from seedpo.evaluation.gains import BaseComparison, RewardGain, compare_with_base
from seedpo.evaluation.settings import LOSS
from seedpo.methods.presets import METHODS, Preset, method_title
from seedpo.metrics.catalogue import find_metric
from seedpo.models.catalogue import MODELS
from seedpo.models.names import hub_place, is_hub_name
from seedpo.pages.tables import markdown_table
from seedpo.publishing.grid import sample_grid
from seedpo.publishing.weights import network_part
from seedpo.run_folders import BestStep, RunFolder, read_metrics
from seedpo.training.settings import RunConfig

CARD = "README.md"
GRID = "grid.png"

Line = Mapping[str, Any]
"""A line of metrics."""

SEE_PAPER = "arXiv 2411.04712"
"""Where the self-entropy term was published."""

_USE_LORA = """from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base}")
pipe.load_lora_weights("{repository}")
image = pipe("your prompt").images[0]"""

_USE_NETWORK = """from diffusers import AutoModel, DiffusionPipeline

network = AutoModel.from_pretrained("{repository}", subfolder="{part}")
pipe = DiffusionPipeline.from_pretrained("{base}", {part}=network)
image = pipe("your prompt").images[0]"""


def write_card(
    run: Path, *, repository: str | None = None, base_model: str | None = None, license: str | None = None
) -> Path:
    """Writes ``README.md``, and ``grid.png`` if there are sample images, into a run folder.

    Args:
        run: the run folder.
        repository: where the weights will lie on the hub, for the lines that load them.
        base_model: hub id of the base model; ``None`` for the run's model, if that is one.
        license: the hub's name of a licence; ``None`` if the card is to name none.

    Returns:
        The card.

    Raises:
        RunFolderError: if there is no run.
    """
    folder = RunFolder.open(run)
    config = folder.read_config(RunConfig)
    base = base_model or (hub_place(config.model)[0] if is_hub_name(config.model) else None)
    lines, best = read_metrics(folder.metrics), folder.best_of_finished()
    grid = sample_grid(folder.samples, last=None if best is None else best.step)
    comparison = compare_with_base(folder)
    if grid is not None:
        grid[0].save(run / GRID)
    text = "\n\n".join(
        [
            _header(config, base, license),
            f"# {_title(config)}",
            _summary(config, base),
            *(comparison.sentences if comparison else []),
            *_pictures(grid),
            _use(config, base, repository, network_part(folder.path / config.weights_folder)),
            "## Training\n\n" + markdown_table(("setting", "value"), _settings(config, folder, lines)),
            *_gain(comparison),
            *_evaluation(config, _evaluations(lines, best)),
        ]
    )
    card = run / CARD
    card.write_text(text + "\n", encoding="utf-8")
    return card


def _header(config: RunConfig, base: str | None, license: str | None) -> str:
    tags = ["text-to-image", "diffusers", config.method, "preference-optimisation", "seedpo"]
    tags += ["lora"] if config.adapter == "lora" else []
    tags += ["see-dpo"] if config.gamma else []
    header: dict[str, Any] = {} if base is None else {"base_model": base}
    header |= {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    header |= {} if license is None else {"license": license}
    return "---\n" + yaml.safe_dump(header | {"tags": tags}, sort_keys=False) + "---"


def _method(config: RunConfig) -> str:
    name = method_title(config.method)
    return f"SEE-{name}" if config.gamma else name


def _title(config: RunConfig) -> str:
    return f"{_shown(config.model).rpartition('/')[2]} aligned with {_method(config)}"


def _shown(name: str) -> str:
    """The name of a model or file, without the folders of this machine."""
    return name if name in MODELS or is_hub_name(name) else Path(name).name


def _summary(config: RunConfig, base: str | None) -> str:
    source = f"[{base}](https://huggingface.co/{base})" if base else f"`{_shown(config.model)}`"
    papers = [METHODS[config.method].paper, *([SEE_PAPER] if config.gamma else [])]
    what = (
        f"A LoRA adapter ({config.trained_words.removeprefix('LoRA of ')})"
        if config.adapter == "lora"
        else "The denoising network"
    )
    return f"{what} of {source}, trained with {_method(config)} ({', '.join(papers)}) by seedpo."


def _data(data: str | tuple[DataSet, ...]) -> str:
    """The names of the sets of pairs, without the folders of this machine."""
    if isinstance(data, str):
        return _shown(data)
    return data_label(tuple(entry.model_copy(update={"name": _shown(entry.name)}) for entry in data))


def _pictures(grid: tuple[Any, int, int] | None) -> list[str]:
    if grid is None:
        return []
    _, first, last = grid
    return [f"![Sample images]({GRID})", f"Left: step {first}. Right: step {last}. Same prompts, same initial latents."]


def _use(config: RunConfig, base: str | None, repository: str | None, part: str) -> str:
    code = _USE_LORA if config.adapter == "lora" else _USE_NETWORK
    filled = code.format(base=base or _shown(config.model), repository=repository or "owner/name", part=part)
    return f"## Use\n\n```python\n{filled}\n```"


def _settings(config: RunConfig, folder: RunFolder, lines: Sequence[Line]) -> list[tuple[str, str]]:
    preset = METHODS[config.method]
    policy_weight, reference_weight = config.weights
    data = "likes of single images" if config.pairs.reads_likes else "preference pairs"
    offline = [(data, "not named" if config.data is None else _data(config.data))]
    judge = "votes of people" if config.feedback.study is not None else _shown(config.reward or "not named")
    online = [("prompts", _shown(config.prompts)), ("reward", judge)]
    last = next((line for line in reversed(lines) if line["kind"] == "train"), {})
    best = folder.best_of_finished()
    return [
        ("method", _method(config)),
        ("base model", _shown(config.model)),
        *([] if config.vae is None else [("autoencoder", _shown(config.vae))]),
        *([] if config.max_sequence_length is None else [("tokens of text", str(config.max_sequence_length))]),
        *([] if config.embedded_guidance is None else [("embedded guidance", f"{config.embedded_guidance:g}")]),
        *(offline if preset.source.fixed_pairs else online),
        *([("loss", config.loss)] if preset.objective == "dpo" else []),
        ("beta", f"{config.beta:g} (log-probabilities reduced by {config.reduction})"),
        *(
            []
            if preset.why_no_gamma is not None
            else [
                ("gamma", f"{config.gamma:g} ({config.entropy_convention})"),
                ("weights of the loss", f"a = {policy_weight:g} (policy), b = {reference_weight:g} (reference)"),
            ]
        ),
        *(
            []
            if config.reference.kind == "frozen"
            else [("reference", f"the model before training{config.reference.words}")]
        ),
        *_own_keys(config),
        ("clip range", "none" if config.clip_range is None else f"{config.clip_range:g}"),
        ("steps", f"{last.get('step', 0)} of {config.max_steps}"),
        (f"{_COUNTED.get(preset.source.gives, 'pairs')} seen", _seen(last, preset)),
        *([] if best is None else [("result", f"step {best.step}, the best by {best.figure} ({best.value:.4g})")]),
        ("learning rate", f"{config.learning_rate:g}"),
        ("trained", config.trained_words),
        *([] if config.ema_decay is None else [("weights", f"moving average, decay {config.ema_decay:g}")]),
        ("mixed precision", config.mixed_precision),
        ("seed", str(config.seed)),
        ("versions", _versions(folder)),
    ]


_COUNTED = {"likes": "likes", "groups": "groups", "step-groups": "denoising steps"}
"""What is trained on, where it is no pairs, by what the source gives."""


def _seen(line: Line, preset: Preset) -> str:
    """How much was trained on; of a fixed set also how much it holds, and how often each was seen."""
    seen, visits = line.get("pairs_seen", 0), line.get("source/visits")
    things = _COUNTED.get(preset.source.gives, "pairs")
    return f"{seen} ({round(seen / visits)} {things}, each {visits:.3g} times)" if visits else f"{seen}"


def _own_keys(config: RunConfig) -> list[tuple[str, str]]:
    """What is set of single objectives, the anchors beside them, and what of a roll-out teaches how much."""
    own = config.objective.model_dump(mode="json", exclude_defaults=True)
    toward = {"initial": " to the model before training", "reference": " to the reference"}[config.anchor.toward]
    named = {"kl": f"distance{toward}", "winner": "error on preferred images", "data": "diffusion loss on data"}
    anchors = [f"{weight:g} x {named[name]}" for name, weight in config.anchor.weights.items()]
    weighting = config.weighting.model_dump(mode="json", exclude_defaults=True) if config.weighting.is_active else {}
    texts = {key: _listed(value) for key, value in weighting.items() if key != "features" or config.weighting.novelty}
    rows = {"objective": _named(own), "anchors": ", ".join(anchors), "weighting": _named(texts)}
    return [(name, text) for name, text in rows.items() if text]


def _listed(value: Any) -> str:
    return " and ".join(value) if isinstance(value, list) else str(value)


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _versions(folder: RunFolder) -> str:
    try:
        packages = read_json(folder.environment)["packages"]
        shown = [f"{name} {packages[name]}" for name in ("seedpo", "torch", "diffusers", "peft") if packages.get(name)]
    except UNREADABLE:
        return "unknown"
    return ", ".join(shown)


def _evaluations(lines: Sequence[Line], best: BestStep | None) -> list[Line]:
    """The evaluations up to the one of which the weights are."""
    return [line for line in lines if line["kind"] == "evaluation" and (best is None or line["step"] <= best.step)]


def _evaluation(config: RunConfig, lines: Sequence[Line]) -> list[str]:
    if not lines:
        return []
    first, last, settings = lines[0], lines[-1], config.evaluation
    names = [name for name in last if f"{name}/low" in last]
    rows = [(name, _direction(name), _interval(first, name), _interval(last, name)) for name in names]
    how = (
        f"{settings.num_prompts} prompts of `{_shown(settings.prompts)}`, {settings.images_per_prompt} images each, "
        f"{settings.num_inference_steps} steps of the model's own sampler without noise, guidance "
        f"{settings.guidance_scale:g}{_embedded(config)}. Means over prompts, "
        "with the 95 % bootstrap interval over prompts; one training run."
    )
    return [
        "## Evaluation",
        how,
        markdown_table(("metric", "better", f"step {first['step']}", f"step {last['step']}"), rows),
    ]


def _embedded(config: RunConfig) -> str:
    """Guidance that the network takes as an input, where a run sets it."""
    return "" if config.embedded_guidance is None else f", embedded guidance {config.embedded_guidance:g}"


def _gain(comparison: BaseComparison | None) -> list[str]:
    """Win rates against the base; nothing where no reward was measured."""
    if comparison is None or not comparison.rewards:
        return []
    what = "the best evaluation, whose weights these are" if comparison.is_best else "the last evaluation"
    how = (
        f"Images of step {comparison.step} ({what}) against those of step 0, for the same prompts and initial latents. "
        "Ties, differences of at most a tenth of the reward's spread over latents, count one half. 95 % bootstrap "
        "intervals over prompts."
    )
    rows = [_gain_row(gain) for gain in comparison.rewards]
    return ["## Against the base model", how, markdown_table(("reward", "wins", "ties", "prompts", "verdict"), rows)]


def _gain_row(gain: RewardGain) -> tuple[str, ...]:
    wins = gain.wins
    name = f"{gain.reward} (trained on)" if gain.trained_on else gain.reward
    return (
        name,
        f"{wins.rate:.0%} [{wins.low:.0%}, {wins.high:.0%}]",
        f"{wins.tie:.0%}",
        str(wins.count),
        gain.gain.value,
    )


def _direction(name: str) -> str:
    if name == LOSS:
        return "lower"
    if name.startswith(("reward/", "validation/")):
        return "higher"
    metric = find_metric(name)
    return "" if metric is None else metric.direction


def _interval(line: Line, name: str) -> str:
    values = [line.get(key) for key in (name, f"{name}/low", f"{name}/high")]
    if any(value is None for value in values):
        return "-"
    mean, low, high = values
    return f"{mean:.4g} [{low:.4g}, {high:.4g}]"
