"""How far the figures of a family can be trusted: seeds, intervals, and whether all saw the same evaluation."""

from __future__ import annotations

import math

from seedpo.reports.settings import Family, Setting, differing_keys, flat
from seedpo.reports.wording import count, listing

IMAGES = ("prompts", "num_prompts", "images_per_prompt", "num_inference_steps", "guidance_scale", "seed")
"""Keys of the evaluation that decide which images are drawn."""

ENOUGH_SEEDS = 3


def certainty(family: Family) -> tuple[tuple[str, ...], bool]:
    """What to know before believing the differences, a paragraph each, and whether the evidence is weak."""
    measured = [one for one in family.settings if one.curves]
    amounts = [_seeds(one) for one in measured]
    lines = [_single(measured) if max(amounts) == 1 else _several(measured)]
    different = different_evaluations(family)
    if different:
        lines.append(
            f"The settings were not evaluated alike ({listing(different)} differ): part of every difference may come "
            "from the evaluation."
        )
    return tuple(lines), min(amounts) < ENOUGH_SEEDS or bool(different)


def different_evaluations(family: Family) -> list[str]:
    """Keys of the evaluation that are not the same in all runs although the images depend on them."""
    runs = [run for one in family.settings for run in one.runs]
    configs = [flat({"evaluation": run.config.get("evaluation", {})}) for run in runs]
    keys = [f"evaluation.{key}" for key in IMAGES]
    found = [key for key in differing_keys(configs) if key in keys]
    if not found and len({run.samples.prompts for run in runs if run.samples}) > 1:
        return ["the prompts"]
    return found


def _seeds(one: Setting) -> int:
    return len({seed for seed, curves in zip(one.seeds, one.by_seed, strict=True) if curves})


def _single(measured: list[Setting]) -> str:
    if any(point.has_interval for one in measured for curve in one.curves.values() for point in curve.points):
        return (
            "One seed per setting. The intervals cover the choice of evaluation prompts, not the seed of the training: "
            "another seed may order the settings differently."
        )
    return "One seed per setting and no intervals were logged: chance cannot be told from effect."


def _several(measured: list[Setting]) -> str:
    counted = listing([f"{count(_seeds(one), 'seed')} of {one.name}" for one in measured])
    line = f"There are {counted}. Curves are means over seeds; bands and brackets are the range over seeds."
    fewest = min(_seeds(one) for one in measured)
    if fewest == 1:
        return f"{line} A setting with one seed shows its own values and intervals over prompts."
    # All of n values above all of n others, either way round: 2 of the (2n choose n) equally likely orders.
    odds = math.comb(2 * fewest, fewest) / 2
    return (
        f"{line} Were there no effect at all, the ranges of two settings with {fewest} seeds each would still lie "
        f"apart in one of {odds:.0f} comparisons."
    )
