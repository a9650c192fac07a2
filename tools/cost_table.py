"""The table of docs/planning.md: what `seedpo plan` says of every recipe for a flow-matching model.

``python -m tools.cost_table`` prints it; it takes some minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

from seedpo.models.pipeline_classes import FAMILIES
from seedpo.planning.dry_run import Guesses
from seedpo.planning.first_recipe import CACHED_VISITS, memory_of
from seedpo.planning.gpus import find_gpu
from seedpo.planning.plan import UTILISATION, Plan, plan_run
from seedpo.training.configuration import resolve_config

HEAD = ("recipe", "network", "GPU", "peak memory", "TFLOP a pair", "RTX-4090", "A100-80", "H100")
"""Columns; the last are pairs an hour."""

GPU_FOR = {24: "RTX-4090", 48: "RTX-A6000", 80: "A100-80"}
"""The GPU that a recipe is planned for, by its GB."""


def flow_recipes() -> Iterator[tuple[str, float]]:
    """Recipes, and 10^9 weights of the network that each trains."""
    for family in FAMILIES.entries:
        if family.process == "flow matching":
            for checkpoint in family.checkpoints:
                for name in checkpoint.recipes:
                    yield name, checkpoint.parameters


def plan_with_caches(recipe: str) -> Plan:
    """The plan of 200 pairs whose latents, prompts and reference are kept."""
    caches = {"folder": "cache", "reference": True, "visits": CACHED_VISITS}
    config = resolve_config(recipe, {"data": "my_pairs/", "cache": caches}, bfloat16=True)
    gpu = find_gpu(GPU_FOR[memory_of(recipe)])
    return plan_run(config, gpu=gpu, guesses=Guesses(pairs=200, cached=True))


def row(recipe: str, parameters: float, plan: Plan) -> tuple[str, ...]:
    """One row of the table."""
    speeds = (find_gpu(name).half * 1e12 * UTILISATION * 3600 / plan.flops_per_pair for name in HEAD[-3:])
    return (
        f"`{recipe}`",
        f"{parameters:.2g} B",
        plan.gpu.name,
        f"{plan.memory.peak / 2**30:.1f} of {plan.gpu.memory:g} GiB",
        f"{plan.flops_per_pair / 1e12:,.0f}",
        *(f"{speed:,.0f}" for speed in speeds),
    )


def line(cells: tuple[str, ...]) -> str:
    """A row in Markdown."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    print(line(HEAD))
    print(line(("---",) * len(HEAD)))
    for recipe, parameters in flow_recipes():
        print(line(row(recipe, parameters, plan_with_caches(recipe))), flush=True)


if __name__ == "__main__":
    main()
