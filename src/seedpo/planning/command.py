"""`seedpo plan`: from the arguments to the printed plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from seedpo.planning.dry_run import Guesses
from seedpo.planning.gpus import Gpu
from seedpo.planning.plan import plan_run
from seedpo.planning.table import as_text
from seedpo.training.settings import RunConfig


@contextmanager
def counting_bar() -> Iterator[Callable[[str], None]]:
    """A progress bar; what it gives receives the name of each part before it is measured."""
    with tqdm(desc="counting", unit=" networks", leave=False) as bar:

        def progress(part: str) -> None:
            bar.set_postfix_str(part.replace("_", " "), refresh=False)
            bar.update()

        yield progress


def plan_text(config: RunConfig, *, gpu: Gpu, gpus: int, utilisation: float, guesses: Guesses, as_json: bool) -> str:
    """The plan of a run as a table or as JSON; shows a progress bar.

    Raises:
        SeedpoError: any problem the user can fix.
    """
    with counting_bar() as progress:
        plan = plan_run(config, gpu=gpu, gpus=gpus, utilisation=utilisation, guesses=guesses, progress=progress)
    return json.dumps(plan.as_json(), indent=1) if as_json else as_text(plan)
