"""`seedpo plan`: from the arguments to the printed plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from seedpo.planning.dry_run import Guesses
from seedpo.planning.gpus import find_gpu
from seedpo.planning.plan import plan_run
from seedpo.planning.table import as_text
from seedpo.training.configuration import resolve_config


def plan_text(
    method_or_recipe: str,
    changes: Mapping[str, Any],
    *,
    gpu: str,
    gpus: int,
    utilisation: float,
    guesses: Guesses,
    as_json: bool,
) -> str:
    """The plan of a method or a recipe as a table or as JSON; shows a progress bar.

    Raises:
        SeedpoError: any problem the user can fix.
    """
    kind = find_gpu(gpu)
    config = resolve_config(method_or_recipe, changes, bfloat16=kind.bfloat16)
    with tqdm(desc="counting", unit=" networks", leave=False) as bar:

        def progress(part: str) -> None:
            bar.set_postfix_str(part.replace("_", " "), refresh=False)
            bar.update()

        plan = plan_run(config, gpu=kind, gpus=gpus, utilisation=utilisation, guesses=guesses, progress=progress)
    return json.dumps(plan.as_json(), indent=1) if as_json else as_text(plan)
