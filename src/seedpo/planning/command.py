"""`seedpo plan`: from the arguments to the printed plan."""

from __future__ import annotations

import json
from collections.abc import Callable

from tqdm import tqdm

from seedpo.planning.plan import Plan
from seedpo.planning.table import as_text


def plan_text(make: Callable[..., Plan], *, as_json: bool) -> str:
    """A plan as a table or as JSON; shows a progress bar.

    Args:
        make: the plan; ``progress`` is to be called with the name of each part before that is measured.
        as_json: whether JSON is asked for.

    Raises:
        SeedpoError: any problem the user can fix.
    """
    with tqdm(desc="counting", unit=" networks", leave=False) as bar:

        def progress(part: str) -> None:
            bar.set_postfix_str(part.replace("_", " "), refresh=False)
            bar.update()

        plan = make(progress=progress)
    return json.dumps(plan.as_json(), indent=1) if as_json else as_text(plan)
