"""What is compared, as data: controls, rivals from their papers and terms of our own, each with the settings tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.hacking.worlds import REWARD_SCALES, World, sum_of
from benchmarks.objectives.contenders import DRAWING_STEPS, GROUP_KEYS
from benchmarks.objectives.contenders import WORLDS as MODELS
from benchmarks.phases import CHOICE, COMPARISON, Phase
from seedpo.settings import merge, nested

PHASES: Mapping[str, Phase] = {"development": CHOICE, "final": COMPARISON}

SHARED: Mapping[str, Any] = {
    "prompts": "scenes-training",
    "batch_size": 16,
    "clip_range": None,
    "log_every": 1,
    "checkpoint_every": 0,
}
"""What all runs share."""

SECOND_OPINION = "scenes-scorer"
"""The held-out reward: learned from labels of the annotator, and no part of a proxy here."""

METRICS = ("truth", "attribute_accuracy", "free_spread", "free_spread_right", "pairwise_diversity")
"""What evaluations measure besides the rewards."""

EVALUATIONS = 8
"""Of a run, after equal parts of it, besides that before training."""

SAMPLED = ("strength", "mixing", "best of n")
"""Controls of sampling, which train nothing: what they make of the base method's runs."""

Role = Literal["control", "rival", "own"]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting of a contender.

    Attributes:
        beta, rate: multiples of the world's.
        length: multiple of its steps.
        opinion: weight of the second opinion in what is trained on, where the proxy has 1, each in its standard
            deviations; 0: the proxy alone.
        keys: other keys, dotted.
    """

    beta: float = 1.0
    rate: float = 1.0
    length: float = 1.0
    opinion: float = 0.0
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the tables.

    Attributes:
        name: in files and tables.
        role: a term of our own must be above every control.
        options: the settings that are tried on the development seeds, by name; one of them is compared.
        methods: that it fits; empty: all.
        method: in place of the world's; empty: that.
        beta: of the other method, in place of the world's.
        sampled_by: whether its runs are drawn from under every control of sampling, too.
    """

    name: str
    role: Role
    options: Mapping[str, Option]
    methods: tuple[str, ...] = ()
    method: str = ""
    beta: float | None = None
    sampled_by: bool = False

    @property
    def asks_opinion(self) -> bool:
        """Whether it uses the second opinion; then it must be above the control that does, too."""
        return self.sums or any("weighting.second_opinion" in option.keys for option in self.options.values())

    @property
    def sums(self) -> bool:
        """Whether it trains on a sum of the proxy and the second opinion."""
        return any(option.opinion for option in self.options.values())

    def fits(self, world: World) -> bool:
        """Whether it can be trained there: a sum needs the scales of its terms."""
        scaled = not self.sums or world.proxy in REWARD_SCALES[world.model]
        return scaled and (not self.methods or world.method in self.methods)


def _several(template: Mapping[str, Any], key: str, *values: Any) -> dict[str, Option]:
    """An option for each value of a key, which names it."""
    return {f"{key.split('.')[-1]}-{value}": Option(keys={**template, key: value}) for value in values}


_OPINION: Mapping[str, Any] = {"weighting.second_opinion": [SECOND_OPINION]}
_PIXELS: Mapping[str, Any] = {"weighting.features": "pixels"}
_EARLY: Mapping[str, Any] = {"anchor.steps": "early"}
_AGREED: Mapping[str, Any] = {**_OPINION, "weighting.agreement": True}
_RESET: Mapping[str, Any] = {
    **_EARLY,
    "anchor.toward": "initial",
    "reference.kind": "reset",
    "reference.every": 20,
}
_GROUPS: Mapping[str, Any] = {**GROUP_KEYS, "groups.min_gap": 0.0}

STEPS_OR_PAIRS = ("spo", "d3po", "online-dpo")

CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            name="base",
            role="control",
            options={"beta-1": Option(), "beta-4": Option(beta=4.0), "beta-16": Option(beta=16.0)},
            sampled_by=True,
        ),
        Contender(
            name="low rate",
            role="control",
            options={"half": Option(rate=0.5, length=1.5), "quarter": Option(rate=0.25, length=2.0)},
        ),
        Contender(name="anchor", role="control", options=_several({}, "anchor.kl", 10.0, 100.0)),
        Contender(
            name="sum",
            role="control",
            options={"half": Option(opinion=0.5), "equal": Option(opinion=1.0)},
        ),
        Contender(name="gamma", role="rival", options=_several({}, "gamma", 1.0, 3.0), methods=STEPS_OR_PAIRS),
        Contender(name="early anchor", role="rival", options=_several(_EARLY, "anchor.kl", 10.0, 100.0)),
        Contender(name="drift", role="rival", options=_several({}, "weighting.outliers", 0.1)),
        Contender(
            name="gardo",
            role="rival",
            options=_several(
                {
                    **_OPINION,
                    **_PIXELS,
                    "weighting.novelty": 1.0,
                    "weighting.gate_anchor": True,
                    "reference.kind": "reset",
                    "reference.every": 20,
                },
                "anchor.kl",
                10.0,
            ),
        ),
        Contender(
            name="sdpo",
            role="rival",
            options={"pair": Option(keys={"objective.loser_scale": "pair"})},
            methods=("online-dpo",),
        ),
        Contender(
            name="linear-dpo",
            role="rival",
            options={"ema": Option(keys={"loss": "linear", "reference.kind": "ema", "reference.decay": 0.95})},
            methods=("online-dpo",),
        ),
        Contender(
            name="dgpo",
            role="rival",
            options={"beta-1": Option(keys=_GROUPS)},
            methods=("online-dpo",),
            method="dgpo",
            beta=100.0,
        ),
        Contender(
            name="novelty",
            role="own",
            options=_several(_PIXELS, "weighting.novelty", 1.0),
        ),
        Contender(
            name="drop",
            role="own",
            options=_several({**_OPINION, "weighting.drop_suspects": True}, "weighting.suspect_share", 0.3),
        ),
        Contender(
            name="opinion",
            role="own",
            options=_several({**_OPINION, "weighting.suspect_share": 0.3}, "weighting.suspect_anchor", 3.0),
        ),
        Contender(
            name="agreement",
            role="own",
            options={
                "alone": Option(keys=_AGREED),
                "early": Option(keys={**_AGREED, **_EARLY, "anchor.kl": 20.0}),
                "novel": Option(keys={**_AGREED, **_PIXELS, "weighting.novelty": 1.0}),
            },
            methods=STEPS_OR_PAIRS,
        ),
        Contender(name="early reset", role="own", options=_several(_RESET, "anchor.kl", 10.0)),
    )
}


def proxy_keys(world: World, opinion: float) -> dict[str, Any]:
    """What is trained on: the proxy, or its sum with the second opinion, in standard deviations of each."""
    if not opinion:
        return {"reward": world.proxy}
    return {"reward": "both", "rewards": {"both": sum_of(world.model, {world.proxy: 1.0, SECOND_OPINION: opinion})}}


def run_keys(world: World, contender: Contender, option: Option, *, phase: str, index: int) -> dict[str, Any]:
    """The configuration of the how-manieth run of a phase."""
    steps = round(world.steps * option.length)
    drawing = {"guidance_scale": MODELS[world.model].guidance_scale, "num_inference_steps": DRAWING_STEPS}
    own = {
        "model": world.model,
        "method": contender.method or world.method,
        "seed": PHASES[phase].first_seed + index,
        "sampling": drawing,
        "beta": (world.beta if contender.beta is None else contender.beta) * option.beta,
        "learning_rate": world.rate * option.rate,
        "max_steps": steps,
        "evaluate_every": math.ceil(steps / EVALUATIONS),
    }
    settings = {} if contender.method else world.settings
    keys = merge(merge(SHARED, own), nested(list(settings.items())))
    return merge(merge(keys, nested(list(option.keys.items()))), proxy_keys(world, option.opinion))
