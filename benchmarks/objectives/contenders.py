"""What is compared, as data: the objectives with their settings, the box of the search, and its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.phases import CHOICE, COMPARISON, Phase
from seedpo.settings import merge, nested


@dataclass(frozen=True, kw_only=True)
class World:
    """One of the embedded models.

    Attributes:
        guidance_scale: at which images are drawn in roll-outs and evaluations.
        budget: units of cost of a run. A row through the network is 1, and its backward pass 1 more (that of an adapter
            needs no gradients of the weights). Evaluations are not counted.
        evaluations: of a run of the comparison, after equal parts of it, the last one included.
    """

    guidance_scale: float
    budget: int
    evaluations: int


WORLDS: Mapping[str, World] = {
    "scenes": World(guidance_scale=3.0, budget=3000, evaluations=2),
    "scenes-flow": World(guidance_scale=1.6, budget=2000, evaluations=1),  # whose rows take twice as long
}

LEARNING_RATES = (5e-4, 8e-3)
"""The box of the search: the same for all, since AdamW makes an update's size independent of the loss's scale."""

DECADES = 1.0
"""Decades on either side of a contender's centre in which its beta is searched."""

PROXY = "scenes-scorer"

DRAWING_STEPS = 6
"""Denoising steps of roll-outs and evaluations: images are about as good as with ten."""

SHARED: Mapping[str, Any] = {
    "prompts": "scenes-training",
    "reward": PROXY,
    "batch_size": 16,
    "clip_range": None,
    "log_every": 1,
    "checkpoint_every": 0,
}
"""What all runs share; other settings are those of the world's row in the catalogue of models."""

METRICS = ("truth", "attribute_accuracy", "free_spread", "free_spread_right", "pairwise_diversity")
"""What evaluations measure in addition to the proxy."""


PAIRS, CACHE = "scenes-pairs.parquet", "cache"
"""Where the embedded pairs and their latents are kept for all runs, in the folder of the results."""


PHASES: Mapping[str, Phase] = {"search": CHOICE, "comparison": COMPARISON}

AT_END = ("search",)
"""Phases of whose runs the end alone is evaluated, and not what their world says."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the table.

    Attributes:
        name: in files and tables.
        method: of seedpo.
        reads: ``pairs`` that people labelled, or ``own`` images, judged by the proxy.
        settings: keys that make it, dotted.
        centre: middle of the search's second key; ``None``: only the learning rate is searched.
        second: the second key that is searched.
        decades: on either side of the centre.
        kept: share of the pairs of a roll-out that are kept, by world, as pilots saw: for planning the number of steps.
        rival: what it is held against at equal proxy; empty: nothing.
        twin: a contender whose learning rate it takes, so that it needs no search.
        factor: of the twin's beta.
    """

    name: str
    method: str
    reads: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    centre: float | None = 100.0
    second: str = "beta"
    decades: float = DECADES
    kept: Mapping[str, float] = field(default_factory=dict)
    rival: str = ""
    twin: str = ""
    factor: float = 1.0

    def changes(self, rate: float, second: float | None) -> dict[str, Any]:
        """The dotted keys of a run, apart from what all share."""
        return {**self.settings, "learning_rate": rate, **({} if second is None else {self.second: second})}


def _labelled(name: str, method: str, *, rival: str = "diffusion-dpo", **other: Any) -> Contender:
    return Contender(name=name, method=method, reads="pairs", rival=rival, **other)


def _own(name: str, method: str, *, rival: str = "online-dpo", **other: Any) -> Contender:
    return Contender(name=name, method=method, reads="own", rival=rival, **other)


GAMMA = 0.5
"""Of the rows with the entropy term, in the relative convention: a = beta (1 + gamma)."""

SPO_KEYS: Mapping[str, Any] = {
    "steps.candidates": 4,
    "steps.plain_steps": 2,
    "steps.min_gap": 0.1,
    "steps.prompts_per_rollout": 8,
    "steps.updates_per_rollout": 3,
}

GRPO_KEYS: Mapping[str, Any] = {
    "batch_size": 32,
    "clip_range": 0.01,
    "groups.images_per_prompt": 8,
    "groups.prompts_per_rollout": 4,
    "step_groups.trained_steps": 3,
}

ONLINE_KEYS: Mapping[str, Any] = {
    "groups.images_per_prompt": 4,
    "groups.prompts_per_rollout": 6,
    "groups.updates_per_rollout": 3,
    "groups.min_gap": 0.1,
    "batch_size": 6,
}

GROUP_KEYS: Mapping[str, Any] = {
    "groups.images_per_prompt": 8,
    "groups.prompts_per_rollout": 4,
    "groups.updates_per_rollout": 3,
    "groups.min_gap": 0.1,
    "batch_size": 4,
}

D3PO_KEYS: Mapping[str, Any] = {
    "trajectories.images_per_prompt": 4,
    "trajectories.prompts_per_rollout": 4,
    "trajectories.min_gap": 0.1,
    "trajectories.steps_per_pair": 1,
}

CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        _labelled("diffusion-dpo", "diffusion-dpo", rival=""),
        _labelled("gamma", "diffusion-dpo", settings={"gamma": GAMMA}, rival="control"),
        _labelled("control", "diffusion-dpo", twin="gamma", factor=1.0 + GAMMA),
        _labelled("ipo", "diffusion-dpo", settings={"loss": "ipo"}),
        _labelled("ema", "diffusion-dpo", settings={"reference.kind": "ema", "reference.decay": 0.9}),
        _labelled("linear-dpo", "linear-dpo", settings={"reference.kind": "frozen"}),
        _labelled("dmpo", "dmpo"),
        _labelled("sdpo", "sdpo"),
        _labelled("smpo", "smpo", settings={"objective.gap_temperature": 5.0}),
        _labelled("dspo", "dspo", centre=0.3),
        _labelled("mapo", "mapo", centre=0.1),
        _labelled("sft", "dspo", settings={"beta": 1e-6}, centre=None),
        _labelled("kto", "kto", settings={"batch_size": 32}),
        _own(
            "spo",
            "spo",
            rival="diffusion-dpo",
            settings=SPO_KEYS,
            centre=10.0,
            kept={"scenes": 0.32, "scenes-flow": 0.7},
        ),
        _own("d3po", "d3po", settings=D3PO_KEYS, centre=10.0, kept={"scenes": 0.6, "scenes-flow": 0.6}),
        _own("online-dpo", "online-dpo", settings=ONLINE_KEYS, rival="diffusion-dpo"),
        _own("pnapo", "pnapo", settings=ONLINE_KEYS),
        _own("dgpo", "dgpo", settings=GROUP_KEYS),
        _own("nft", "nft", settings={**GROUP_KEYS, "groups.updates_per_rollout": 2}, centre=0.5, decades=0.7),
        _own("flow-grpo", "flow-grpo", settings=GRPO_KEYS, centre=0.01),
    )
}


def trial_point(index: int) -> tuple[float, float]:
    """A point of the unit square: the R2 sequence (Roberts 2018), whose first points cover it evenly, however many.

    The first is the middle.
    """
    ratio = 1.32471795724474602596
    return (0.5 + index / ratio) % 1.0, (0.5 + index / ratio**2) % 1.0


def trial(contender: Contender, index: int) -> tuple[float, float | None]:
    """Learning rate and second value of a trial, to three digits."""
    across, up = trial_point(index)
    low, high = LEARNING_RATES
    rate = float(f"{low * (high / low) ** across:.3g}")
    if contender.centre is None:
        return rate, None
    return rate, float(f"{contender.centre * 10 ** (contender.decades * (2 * up - 1)):.3g}")


def run_keys(
    world: str, contender: Contender, changes: Mapping[str, Any], *, seed: int, folder: Path
) -> dict[str, Any]:
    """The keys of a run, apart from its number of steps.

    Args:
        world: name of its model.
        contender: what is trained.
        changes: its dotted keys.
        seed: of the run.
        folder: with the pairs and the cache that :func:`benchmarks.objectives.running.prepare` makes.
    """
    own: dict[str, Any] = {"model": world, "method": contender.method, "seed": seed}
    if contender.reads == "pairs":
        own |= {"data": str(folder / PAIRS), "cache": {"folder": str(folder / CACHE)}}
    else:
        own |= {"sampling": {"guidance_scale": WORLDS[world].guidance_scale, "num_inference_steps": DRAWING_STEPS}}
    return merge(merge(SHARED, own), nested(list(changes.items())))
