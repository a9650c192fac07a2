"""Settings and families whose numbers are written by hand, so that every sentence can be foreseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seedpo.core.verdicts import judge_run
from seedpo.reports.curves import Curve, Curves, Point, evaluations_of
from seedpo.reports.families import Family, Role, Setting

PROXY = "reward/scorer"


def curve(values: Sequence[float], *, half: float | None = 0.05, every: int = 10) -> Curve:
    """Values at steps 0, ``every``, ...; intervals of ``half`` to either side, or none."""
    points = [Point(value=v) if half is None else Point(value=v, low=v - half, high=v + half) for v in values]
    return Curve(steps=tuple(every * index for index in range(len(values))), points=tuple(points))


def curves(
    proxy: Sequence[float], truth: Sequence[float], half: float | None = 0.05, **others: Sequence[float]
) -> Curves:
    """Curves of one run."""
    named = {PROXY: proxy, "truth": truth} | others
    return {key: curve(values, half=half) for key, values in named.items()}


def setting(role: Role, *by_seed: Curves, beta: float = 1.0, gamma: float = 0.0, **changes: Any) -> Setting:
    """A setting with seeds 0, 1, ..."""
    names = {"base": "base", "see": f"SEE {gamma:g}", "control": "control"}
    values: dict[str, Any] = {
        "name": names[role],
        "role": role,
        "beta": beta,
        "gamma": gamma,
        "policy_weight": beta * (1 + gamma),
        "seeds": tuple(range(len(by_seed))),
        "by_seed": by_seed,
        "verdicts": tuple(judge_run(evaluations_of(one), proxy=PROXY, judges=["truth"]) for one in by_seed if one),
    }
    return Setting(**values | changes)


def base(*by_seed: Curves) -> Setting:
    return setting("base", *by_seed)


def see(*by_seed: Curves) -> Setting:
    return setting("see", *by_seed, gamma=3.0)


def control(*by_seed: Curves) -> Setting:
    return setting("control", *by_seed, beta=4.0)


def family(*settings: Setting) -> Family:
    return Family(title="D3PO", method="d3po", proxy=PROXY, judge="truth", settings=settings)
