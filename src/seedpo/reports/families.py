"""Runs sorted into what is compared: seeds into settings, settings into families with base, SEE and control.

A **setting** is one configuration apart from the seed. A **family** holds the settings that differ in the weights
(beta, gamma) and in the terms that are added to a method only; these are compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from seedpo.core.verdicts import Outcome, Rule, Verdict, judge_run, shared_outcome
from seedpo.methods.presets import method_title
from seedpo.pages.wording import compact, listing, written
from seedpo.reports.curves import Curves, evaluations_of, mean_curve, read_curves
from seedpo.reports.names import figure_name
from seedpo.reports.runs import DEFAULTS, Run
from seedpo.settings import changes_results, dotted
from seedpo.training.settings import RunConfig
from seedpo.training.signs import held_out_keys, verdict_rule

Role = Literal["base", "see", "control", "term"]
ROLES: tuple[Role, ...] = ("base", "see", "control", "term")

WEIGHTS = ("beta", "gamma", "entropy_convention")
TERMS = ("anchor", "reference", "weighting")
"""Sections of terms that are added to a method."""

NOT_FAMILY = (*WEIGHTS, *TERMS, "seed", "max_steps", "evaluate_every", "evaluation")
"""Keys that may differ between runs that are compared, besides those that change no result."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One configuration with one or more seeds.

    Attributes:
        name: what it is called on the page; unique within its family.
        role: base method, SEE variant, temperature control, or a method with a term of :data:`TERMS` that others lack.
        beta: weight of the KL term.
        gamma: weight of the entropy term.
        policy_weight: the weight a of the policy's log-probability.
        seeds: seed of each run.
        by_seed: curves of each run.
        runs: the runs themselves.
        order: position among the settings of its role; chooses the dash pattern.
        verdicts: on reward hacking, of every run that was evaluated.
        label: what legends call it: its run folder, or what the folders of its seeds begin with; empty: its name.
    """

    name: str
    role: Role
    beta: float
    gamma: float
    policy_weight: float
    seeds: tuple[int, ...]
    by_seed: tuple[Curves, ...]
    runs: tuple[Run, ...] = ()
    order: int = 0
    verdicts: tuple[Verdict, ...] = ()
    label: str = ""

    @property
    def legend(self) -> str:
        """What legends call it."""
        return self.label or self.name

    @property
    def curves(self) -> Curves:
        """Mean over the seeds with their range; of a single seed its own values and intervals over prompts."""
        measured = [curves for curves in self.by_seed if curves]
        if len(measured) < 2:
            return measured[0] if measured else {}
        shared = [key for key in measured[0] if all(key in curves for curves in measured)]
        return {key: mean_curve([curves[key] for curves in measured]) for key in shared}

    @property
    def reach(self) -> int:
        """The last step that all seeds were evaluated at; -1 if there is none."""
        return max((step for curve in self.curves.values() for step in curve.steps), default=-1)

    @property
    def outcome(self) -> Outcome:
        """What more than half of the seeds show."""
        return shared_outcome([verdict.outcome for verdict in self.verdicts])

    @property
    def several_seeds(self) -> bool:
        """Whether the intervals are ranges over seeds."""
        return sum(bool(curves) for curves in self.by_seed) > 1


@dataclass(frozen=True, kw_only=True)
class Family:
    """Settings that may be compared.

    Attributes:
        title: the method, and what sets it apart from other families of the same method.
        method: name of the method.
        proxy: key of the reward that is optimised.
        judge: key of what the proxy stands for: the truth, or a held-out reward where no truth is known.
        settings: base settings first, then SEE, controls and terms.
        twins: folders that hold a run once more, and the one of them that counts.
    """

    title: str
    method: str
    proxy: str
    judge: str
    settings: tuple[Setting, ...]
    twins: tuple[tuple[Run, Run], ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of all settings, each once."""
        return tuple(run for setting in self.settings for run in setting.runs)

    @property
    def judge_name(self) -> str:
        """The judge in words."""
        return ("held-out " if self.judge.startswith("reward/") else "") + figure_name(self.judge)

    @property
    def figures(self) -> set[str]:
        """Keys of everything that was measured in some setting."""
        return {key for setting in self.settings for key in setting.curves}

    def base_of(self, see: Setting) -> Setting | None:
        """The base method at the SEE setting's beta."""
        return self._plain(see.beta)

    def control_of(self, see: Setting) -> Setting | None:
        """The temperature control: the base method at beta' = a of the SEE setting."""
        return self._plain(see.policy_weight)

    def _plain(self, beta: float) -> Setting | None:
        """The base method at a beta; of several the one trained longest."""
        plain = [
            setting
            for setting in self.settings
            if setting.gamma == 0 and setting.role != "term" and math.isclose(setting.beta, beta, rel_tol=1e-6)
        ]
        return max(plain, key=lambda setting: setting.reach, default=None)


def held_out(run: Run) -> tuple[str, ...]:
    """Keys of the figures that decide about reward hacking, by the rule of the alarms; by default truth comes first."""
    named = run.get("alarms.held_out_rewards")
    keys = held_out_keys(run.rewards, run.get("evaluation.metrics"), named)
    return tuple(sorted(keys, key=lambda key: key != "truth")) if named is None else keys


def verdict_of(run: Run, curves: Curves) -> Verdict:
    """The verdict on reward hacking, with the held-out figures and thresholds of the run's own configuration."""
    return judge_run(evaluations_of(curves), proxy=run.proxy, judges=held_out(run), rule=rule_of(run))


def rule_of(run: Run) -> Rule:
    """The thresholds of the run's own alarms."""
    return verdict_rule({name: run.get(f"alarms.{name}.threshold") for name in ("hacking", "collapse")})


def group(runs: Sequence[Run]) -> tuple[Family, ...]:
    """Sorts runs into families and settings, in the order in which they are given.

    Folders with one configuration, seed included, hold one run: it counts once, and :attr:`Family.twins` names them.
    """
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(f"{_without(run, NOT_FAMILY)} {run.rewards[:1]}", []).append(run)
    built = [_family(members) for members in families.values()]
    return tuple(_retitled(family, built) for family in built)


def distinct(runs: Sequence[Run]) -> tuple[list[Run], tuple[tuple[Run, Run], ...]]:
    """The runs without repetitions of one configuration, and each repetition with the run that counts.

    Of one configuration the finished run counts, or the longest, or the first.
    """
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(_without(run, ()), []).append(run)
    counted = [max(twins, key=lambda run: (run.finished is not None, run.last_step)) for twins in alike.values()]
    pairs = zip(alike.values(), counted, strict=True)
    return counted, tuple((run, kept) for twins, kept in pairs for run in twins if run is not kept)


def _settings(run: Run) -> dict[str, Any]:
    """The dotted keys of a run that may change its results; a key that its configuration lacks has its default."""
    return {key: value for key, value in _with_defaults(run).items() if changes_results(RunConfig, key)}


def _with_defaults(run: Run) -> dict[str, Any]:
    """The configuration, and the keys that came after it was written; sections that it sets to nothing stay so."""
    own = dotted(run.config)
    return own | {key: value for key, value in DEFAULTS.items() if not {key, key.split(".")[0]} & own.keys()}


def _without(run: Run, keys: Collection[str]) -> str:
    rest = {key: value for key, value in _settings(run).items() if key.split(".")[0] not in keys}
    return json.dumps(rest, sort_keys=True, default=str)


def _family(members: Sequence[Run]) -> Family:
    runs, twins = distinct(members)
    groups = seeds_together(runs)
    see = [alike[0] for alike in groups if float(alike[0].config["gamma"]) != 0]
    plain = min((_terms(alike[0]) for alike in groups), key=len)
    settings = [_setting(alike, see, plain) for alike in groups]
    settings.sort(key=lambda setting: (ROLES.index(setting.role), setting.beta, setting.gamma))
    seen: dict[Role, int] = {}
    for index, setting in enumerate(settings):
        seen[setting.role] = seen.get(setting.role, -1) + 1
        settings[index] = replace(setting, order=seen[setting.role], name=_unique_name(setting, settings))
    folders = [folder_name(setting.runs) for setting in settings]
    if len(set(folders)) == len(folders) and all(folders):
        settings = [replace(setting, label=folder) for setting, folder in zip(settings, folders, strict=True)]
    measured = {key for setting in settings for curves in setting.by_seed for key in curves}
    judges = [key for key in held_out(runs[0]) if key in measured]
    method = str(runs[0].config["method"])
    return Family(
        title=method_title(method),
        method=method,
        proxy=runs[0].proxy,
        judge=next(iter(judges), "truth"),
        settings=tuple(settings),
        twins=twins,
    )


def seeds_together(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but their seed, in the order in which they are given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_without(run, ("seed",)), []).append(run)
    return list(groups.values())


def _terms(run: Run) -> dict[str, Any]:
    """The dotted keys of terms that are not left at their defaults."""
    return {
        key: value for key, value in _settings(run).items() if key.split(".")[0] in TERMS and value != DEFAULTS.get(key)
    }


def _in_words(key: str, value: Any) -> str:
    """A key and its value; of one that is switched on the key alone."""
    name = key.split(".")[-1].replace("_", " ")
    text = listing(value) if isinstance(value, list) else written(value)
    return name if value is True else f"{name} {text}"


def _setting(runs: Sequence[Run], see: Sequence[Run], plain: Mapping[str, Any]) -> Setting:
    """A setting of a family whose members have these terms, or more."""
    first = runs[0]
    own = [_in_words(key, value) for key, value in _terms(first).items() if plain.get(key) != value]
    beta, gamma = float(first.config["beta"]), float(first.config["gamma"])
    role: Role = "base"
    if gamma != 0:
        role = "see"
    elif not any(math.isclose(float(other.config["beta"]), beta) for other in see):
        role = "control" if any(math.isclose(other.weights[0], beta, rel_tol=1e-6) for other in see) else "base"
    role = "term" if own else role
    by_seed = tuple(read_curves(run.evaluations, run.per_prompt) for run in runs)
    with_entropy = f"SEE \N{GREEK SMALL LETTER GAMMA} = {compact(gamma)}"
    names = {"base": "base", "see": with_entropy, "control": "control"}
    names["term"] = ", ".join([*([with_entropy] if gamma else []), *own])
    return Setting(
        name=names[role],
        role=role,
        beta=beta,
        gamma=gamma,
        policy_weight=first.weights[0],
        seeds=tuple(run.seed for run in runs),
        by_seed=by_seed,
        runs=tuple(runs),
        verdicts=tuple(verdict_of(run, curves) for run, curves in zip(runs, by_seed, strict=True) if curves),
    )


def folder_name(runs: Sequence[Run]) -> str:
    """The folder of a run, or what the folders of several seeds begin with."""
    if len(runs) == 1:
        return runs[0].name
    first, last = min(run.name for run in runs), max(run.name for run in runs)
    alike = list(takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return re.sub(r"[-_. ]*(seed)?[-_=. ]*$", "", "".join(letter for letter, _ in alike))


def _unique_name(setting: Setting, settings: Sequence[Setting]) -> str:
    """The name, with beta and then further keys if another setting of the role has the same one."""
    beta = f"\N{GREEK SMALL LETTER BETA}{chr(0x2032) if setting.role == 'control' else ''} = {compact(setting.beta)}"
    alike = [
        other
        for other in settings
        if other.role == setting.role and other.name == setting.name and other is not setting
    ]
    if not alike and setting.role in ("see", "term"):
        return setting.name
    name = f"{setting.name}{',' * (setting.role in ('see', 'term'))} {beta}"
    twins = [other for other in alike if other.beta == setting.beta and other.runs and setting.runs]
    keys = differing_keys([_settings(other.runs[0]) for other in (setting, *twins)]) if twins else []
    return ", ".join(
        [name, *(f"{key} {written(dotted(setting.runs[0].config).get(key))}" for key in keys if key != "seed")]
    )


def _retitled(family: Family, families: Sequence[Family]) -> Family:
    """The family with the keys in its title that set it apart from others of its method."""
    alike = [other for other in families if other.method == family.method]
    if len(alike) < 2:
        return family
    configs = [_settings(other.settings[0].runs[0]) for other in alike]
    own = configs[alike.index(family)]
    keys = [
        key for key in differing_keys(configs) if key == "evaluation.rewards" or key.split(".")[0] not in NOT_FAMILY
    ]
    if len({config["model"] for config in configs}) == len(configs):
        keys = ["model"]  # a registered model sets others of its own
    return replace(family, title=f"{family.title} ({listing([f'{key} {written(own.get(key))}' for key in keys])})")


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same everywhere, in the order of the first configuration that has them."""
    keys = {key: None for config in configs for key in config}
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]
