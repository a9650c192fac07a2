"""Writes docs/configuration.md, the page of all keys, from the fields of the settings.

``python -m tools.configuration_page``
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from seedpo.keys import Group, Key, groups, yaml_text
from seedpo.settings import Section
from seedpo.training.layers import rows
from seedpo.training.settings import RewardRunConfig, RunConfig

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

HEAD = """\
Every key of `seedpo train` and of `seedpo reward train`. Write keys in a recipe, where sections are
nested, or after `--set`, where a dot separates them:

    optimizer:                        # in my-recipe.yaml
      warmup_steps: 20

    seedpo train my-recipe.yaml --set optimizer.warmup_steps=20 --out runs/mine

`none` is YAML's `null`. `<name>` stands for a name of your own. A method or a registered model can
have a default of its own: it stands after the name. A model's default wins over a method's, and
what you write wins over both. [Recipes](recipes.md) says more.

    seedpo config explain optimizer.warmup_steps       # one key, or a section: what stands here
    seedpo config show my-recipe.yaml                  # what a run resolves to, and which layer says so

This page is written from the settings in the source: `python -m tools.configuration_page`."""

REWARD_HEAD = """\
`seedpo reward train` trains a preference model; see [reward training](reward-training.md). The
defaults after `no data named` are those of the embedded scorer."""


def page() -> str:
    """The page in Markdown."""
    policy, reward = list(groups(RunConfig)), list(groups(RewardRunConfig))
    same = {key for group in policy for key in group.keys}
    shared = [key.name for group in reward for key in group.keys if key in same]
    rest = [
        Group(name=group.name, text=group.text, keys=tuple(key for key in group.keys if key not in same))
        for group in reward
    ]
    parts = ["# All keys", HEAD, *_sections(RunConfig, policy, "The run"), "## Preference models", REWARD_HEAD]
    parts += [_table(RewardRunConfig, [key for group in rest for key in group.keys])]
    parts += [_wrapped(f"These mean the same as above: {', '.join(f'`{name}`' for name in shared)}.")]
    values = _set_by(RewardRunConfig, shared)
    if values:
        parts += [_wrapped(f"No data named: {', '.join(values)}.")]
    return "\n\n".join(parts) + "\n"


def _sections(kind: type[Section], all_groups: Iterable[Group], title: str) -> Iterator[str]:
    """A heading, a sentence and a table for each section of the settings."""
    for top, inside in groupby(all_groups, lambda group: group.name.partition(".")[0]):
        parts = list(inside)
        yield f"## {top or title}"
        yield _wrapped(_markdown(parts[0].text))
        yield _table(kind, [key for group in parts for key in group.keys])


def _table(kind: type[Section], keys: Iterable[Key]) -> str:
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{key.name}` | {key.values} | {_default(kind, key)} | {_markdown(key.text)} |" for key in keys]
    return "\n".join(lines)


def _default(kind: type[Section], key: Key) -> str:
    """The general default, and those of methods and models that have their own."""
    values = [f"`{key.default}`" if key.default is not None else "must be given"]
    values += [f"{name} `{yaml_text(row[key.name])}`" for name, row in rows(kind).items() if key.name in row]
    return "; ".join(values)


def _set_by(kind: type[Section], names: Iterable[str]) -> list[str]:
    wanted = set(names)
    return [f"`{key}: {yaml_text(row[key])}`" for row in rows(kind).values() for key in row if key in wanted]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _markdown(text: str) -> str:
    """A docstring in a cell of a table; names of pages become links."""
    linked = re.sub(r"\bdocs/([\w-]+)\.md", r"[\1](\1.md)", text)
    return re.sub(r"\|(?=[^`]*(?:`[^`]*`[^`]*)*$)", "&#124;", linked)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
