"""Raters who ask that everything of them be deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from seedpo.errors import ConfigError
from seedpo.study.folder import open_study
from seedpo.study.votes.store import Store


def forget_raters(
    folder: Path, names: Sequence[str], *, url: str | None = None, agreed: Callable[[str], bool]
) -> list[str]:
    """Deletes raters with everything that they saw and answered; nothing can bring it back.

    Args:
        folder: of the study.
        names: ids of raters, or their personal links.
        url: of the database; `None`: the study's own.
        agreed: asks a question, once, before anything is deleted.

    Returns:
        What was deleted, in words; nothing if it was not agreed to.

    Raises:
        ConfigError: the study has no rater of one of these ids or links; nothing is deleted then.
    """
    with Store.open(open_study(folder, verify=False), url) as store:
        labels = {rater.id: rater.label for rater in store.raters()}
        names = list(dict.fromkeys(_id_of(name, store) for name in names))
        unknown = next((name for name in names if name not in labels), None)
        if unknown is not None:
            raise ConfigError(f"study {folder} has no rater {unknown!r}; `seedpo study status` lists them")
        listed = ", ".join(f"{name} ({labels[name]})" if labels[name] else name for name in names)
        if not agreed(f"Delete {listed} with all answers? Nothing can bring them back."):
            return []
        forgotten = [store.forget(name) for name in names]
        lines = [f"forgotten: {item.rater}, {item.shows} tasks, {item.answers} answers" for item in forgotten]
        if not store.wipe():
            lines.append(
                "the rows are deleted, and the database was too busy to overwrite their bytes: run VACUUM in it later"
            )
        return [*lines, "backups, exports and analyses that were made before still hold these answers"]


def _id_of(name: str, store: Store) -> str:
    """The id of a rater who is named by it or by a personal link, which only the rater has."""
    _, mark, token = name.rpartition("/r/")
    rater = store.rater(token) if mark else None
    return name if rater is None else rater.id
