"""Optimal policies at equal proxy, in a discrete world: ``python -m benchmarks.equal_proxy OUT``.

Images are the cells of a grid: how good their content is, and how far an artefact takes them from the reference. Every
policy is the exact optimum of its objective, so that no training can be blamed. docs/derivations.md, section 13, has
the proofs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedpo.pages.figures import Line, Panel
from seedpo.reports.figures.drawing import draw_panels

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Finitely many images of one prompt.

    Attributes:
        log_reference: of each image, (N,), nats.
        proxy: the optimised reward, (N,).
        truth: what is wanted, (N,).
        opinion: the held-out reward, (N,).
        content, artefact: the two coordinates of an image in some feature space, as numbers of cells, (N,).
    """

    log_reference: Array
    proxy: Array
    truth: Array
    opinion: Array
    content: NDArray[np.int64]
    artefact: NDArray[np.int64]


Family = Callable[[float], Array]
"""Policies of one objective, (N,), by the weight 1 / temperature of its proxy."""


def normalised(log_weights: Array) -> Array:
    """Probabilities in proportion to exp(log_weights)."""
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def entropy(policy: Array) -> float:
    """-E[log pi] in nats."""
    return -float(policy @ np.log(np.maximum(policy, 1e-300)))


def divergence(policy: Array, log_reference: Array) -> float:
    """KL(pi || pi_ref) in nats."""
    return -entropy(policy) - float(policy @ log_reference)


def see(world: World, gamma: float) -> Family:
    """pi_ref^{1 / (1 + gamma)} exp(weight r) / Z: the least KL - gamma H at its E[r]; at 0 the base method."""
    return lambda weight: normalised(world.log_reference / (1.0 + gamma) + weight * world.proxy)


def tilted(world: World, feature: Array, strength: float) -> Family:
    """pi_ref exp(weight r + strength f) / Z: least KL - strength E[f]; with f a held-out reward, a second opinion."""
    return lambda weight: normalised(world.log_reference + weight * world.proxy + strength * feature)


def spread(family: Family, cells: NDArray[np.int64], power: float) -> Family:
    """The least KL - power H(cells), with the family's own tilt: what novelty as a weight comes to.

    Within a cell the odds are those of the family; a cell's probability is the family's to the power 1 / (1 + power).

    Args:
        family: what is spread.
        cells: what the features see of each image, (N,); images of one cell look alike to them.
        power: 0 or more; in the relative convention, the gamma of an entropy of cells.
    """

    def policy(weight: float) -> Array:
        plain = family(weight)
        mass = np.bincount(cells, weights=plain)[cells]
        return normalised(np.log(np.maximum(plain, 1e-300)) - power / (1.0 + power) * np.log(np.maximum(mass, 1e-300)))

    return policy


def anchored(world: World, suspects: NDArray[np.bool_], kappa: float) -> Family:
    """pi_ref exp(weight (r - level) / (1 + kappa [suspect])): the divergence counts 1 + kappa times there.

    The level makes it sum to 1. It lies within the rewards, since pi_ref sums to 1 too.
    """
    stiffness = np.where(suspects, 1.0 + kappa, 1.0)

    def policy(weight: float) -> Array:
        def log_policy(level: float) -> Array:
            return world.log_reference + weight * (world.proxy - level) / stiffness

        ends = float(world.proxy.min()), float(world.proxy.max())
        return normalised(
            log_policy(root(lambda level: -weight * float(np.logaddexp.reduce(log_policy(level))), *ends))
        )

    return policy


def suspects(world: World, least: float = 0.2) -> NDArray[np.bool_]:
    """Images whose win rate by the proxy exceeds that by the second opinion by more than ``least``, under pi_ref."""
    reference = np.exp(world.log_reference)

    def win_rate(reward: Array) -> Array:
        below = reward[:, None] > reward[None, :]
        return np.asarray((below + 0.5 * (reward[:, None] == reward[None, :])) @ reference)

    return np.asarray(win_rate(world.proxy) - win_rate(world.opinion) > least)


def root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0, by bisection to the last bit."""
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high


def at_proxy(world: World, family: Family, mean: float) -> Array:
    """The member of a family with E[r] = mean; a weight is at most 60 on either side of 0."""
    return family(root(lambda weight: float(family(weight) @ world.proxy) - mean, -60.0, 60.0))


def grid_world(error: str = "off-reference", *, shared: float = 0.0, size: int = 31) -> World:
    """The world of the figure.

    The reference is normal in content u and artefact v, each from -5 to 5. Truth is the content, less v^2 / 2 where the
    error grows off the reference, plus v^2 / 2 where the reference is too narrow: there what it seldom draws is better.
    The proxy adds u and v, so that it takes artefacts for merit. The second opinion is the truth with errors of its
    own: a share of the proxy's, and a ripple that has nothing to do with it.

    Args:
        error: ``off-reference`` or ``narrow``.
        shared: share of the proxy's error that the second opinion has too.
        size: cells of each coordinate.
    """
    numbers = np.arange(size)
    content, artefact = (part.ravel() for part in np.meshgrid(numbers, numbers, indexing="ij"))
    u, v = (10.0 * part / (size - 1) - 5.0 for part in (content, artefact))
    log_reference = -0.5 * (u**2 + v**2)
    truth = u + {"off-reference": -0.5, "narrow": 0.5}[error] * v**2
    proxy = u + v
    return World(
        log_reference=log_reference - np.logaddexp.reduce(log_reference),
        proxy=proxy,
        truth=truth,
        opinion=truth + shared * (proxy - truth) + 0.5 * np.cos(4.0 * u + 7.0 * v),
        content=content,
        artefact=artefact,
    )


GAMMA, OPINION, KAPPA = 3.0, 0.5, 3.0
"""Of the entropy terms, weight of the second opinion over beta, and what KL counts more on suspects."""


def families(world: World) -> Mapping[str, Family]:
    """What the figure compares, by its label."""
    base, opinion = see(world, 0.0), tilted(world, world.opinion, OPINION)
    return {
        "base": base,
        "SEE": see(world, GAMMA),
        "novelty of content": spread(base, world.content, GAMMA),
        "novelty of artefacts": spread(base, world.artefact, GAMMA),
        "second opinion, reward": opinion,
        "second opinion, anchor": anchored(world, suspects(world), KAPPA),
        "second opinion and novelty of content": spread(opinion, world.content, GAMMA),
    }


STYLES = (("base", 0), ("see", 0), ("see", 1), ("see", 2), ("control", 0), ("control", 1), ("control", 2))
"""Colour and dashes of the families in turn."""

PROXIES = np.linspace(0.0, 2.5, 26)
"""Where families are compared."""

MEAN = 1.5
"""The proxy of the table, and of the panel of gammas."""


def curve(world: World, family: Family, figure: Callable[[Array], float]) -> Array:
    """A figure of a family's policies at :data:`PROXIES`."""
    return np.array([figure(at_proxy(world, family, mean)) for mean in PROXIES])


def theorem_panel(world: World) -> Panel:
    """The two sides of the inequality over gamma, at one proxy."""
    gammas = np.linspace(0.0, 6.0, 25)
    base = at_proxy(world, see(world, 0.0), MEAN)
    policies = [at_proxy(world, see(world, gamma), MEAN) for gamma in gammas]
    diverse = np.array([entropy(policy) - entropy(base) for policy in policies])
    far = np.array([divergence(policy, world.log_reference) for policy in policies])
    far -= divergence(base, world.log_reference)
    lines = [
        Line(label="gamma x gain in entropy", role="see", order=3, x=gammas, y=gammas * diverse),
        Line(label="gain in KL", role="control", order=3, x=gammas, y=far),
    ]
    return Panel(title="At equal proxy", x_label="gamma", y_label="nats", lines=lines, by_step=False)


def figure_panels() -> list[Panel]:
    """The inequality, entropy, and truth in the two worlds."""
    worlds = {"off-reference": grid_world(), "narrow": grid_world("narrow")}

    def panel(title: str, label: str, world: World, figure: Callable[[Array], float]) -> Panel:
        lines = [
            Line(label=name, role=role, order=order, x=PROXIES, y=curve(world, family, figure))
            for (name, family), (role, order) in zip(families(world).items(), STYLES, strict=True)
        ]
        return Panel(title=title, x_label="proxy", y_label=label, lines=lines, by_step=False)

    off, narrow = worlds.values()
    return [
        theorem_panel(off),
        panel("Diversity, error off the reference", "entropy, nats", off, entropy),
        panel("Truth, error off the reference", "truth", off, lambda policy: float(policy @ off.truth)),
        panel("Truth, reference too narrow", "truth", narrow, lambda policy: float(policy @ narrow.truth)),
    ]


def table(mean: float = MEAN) -> list[str]:
    """Rows of Markdown: each family less the base method at one proxy, in both worlds."""
    rows = [
        "| policy | entropy | KL | truth, off the reference | truth, reference too narrow |",
        "|---|---|---|---|---|",
    ]
    off, narrow = grid_world(), grid_world("narrow")
    base = {id(world): at_proxy(world, see(world, 0.0), mean) for world in (off, narrow)}
    for name in list(families(off))[1:]:
        policy, other = (at_proxy(world, families(world)[name], mean) for world in (off, narrow))
        own, before = policy, base[id(off)]
        figures = (
            entropy(own) - entropy(before),
            divergence(own, off.log_reference) - divergence(before, off.log_reference),
            float((own - before) @ off.truth),
            float((other - base[id(narrow)]) @ narrow.truth),
        )
        rows.append(f"| {name} | " + " | ".join(f"{figure:+.2f}" for figure in figures) + " |")
    return rows


def opinion_table(mean: float = MEAN, shares: Sequence[float] = (0.0, 0.5, 1.0)) -> list[str]:
    """Rows of Markdown: what a second opinion adds to truth at one proxy, by the share of the proxy's error in it."""
    rows = ["| share of the proxy's error | as a reward | as an anchor |", "|---|---|---|"]
    for share in shares:
        world = grid_world(shared=share)
        base = at_proxy(world, see(world, 0.0), mean)
        names = ("second opinion, reward", "second opinion, anchor")
        gains = [float((at_proxy(world, families(world)[name], mean) - base) @ world.truth) for name in names]
        rows.append(f"| {share:g} | " + " | ".join(f"{gain:+.2f}" for gain in gains) + " |")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the figure and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal_proxy", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of equal-proxy.svg")
    out = parser.parse_args(arguments).out
    draw_panels(figure_panels(), out / "equal-proxy.svg", width=6.9)
    print("\n".join([*table(), "", *opinion_table()]))


if __name__ == "__main__":
    main()
