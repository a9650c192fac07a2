"""``seedpo config`` and ``seedpo --version``."""

from __future__ import annotations

import platform
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedpo.cli.shared import Changes, read_changes, say
from seedpo.errors import ConfigError

if TYPE_CHECKING:
    from seedpo.keys import Key
    from seedpo.settings import Section
    from seedpo.training.layers import Layer

config_app = typer.Typer(no_args_is_help=True, help="Explain the keys of a run, and show what a run resolves to.")

PACKAGES = ("seedpo", "torch", "diffusers", "transformers", "peft", "accelerate")
"""Distributions that ``seedpo --version`` names."""


def print_versions(wanted: bool) -> None:
    """Prints the versions that a report of a fault needs, and ends; does nothing unless it is wanted."""
    if not wanted:
        return
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "not installed"
        say(f"{name} {version}")
        if name == "seedpo":
            say(f"Python {platform.python_version()}")
    raise typer.Exit


@config_app.command("explain")
def explain_command(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Dotted key or section; all sections if not given.")
    ] = None,
) -> None:
    """Say what a key means, what it takes, and its defaults.

    Examples:
        seedpo config explain optimizer.warmup_steps

        seedpo config explain pairs

        seedpo config explain
    """
    width = min(max(shutil.get_terminal_size((80, 24)).columns, 40), 110)
    say(overview(width) if key is None else explanation(key, width))


@config_app.command("show")
def show_command(
    place: Annotated[
        str, typer.Argument(metavar="METHOD|RECIPE|RUN_FOLDER", help="A method, a recipe, or the folder of a run.")
    ],
    changes: Changes = None,
    everything: Annotated[bool, typer.Option("--all", help="Keys with their general defaults too.")] = False,
) -> None:
    """Print the settings that a run resolves to, as YAML; a comment names the layer that sets each value.

    The layers, in the order in which later ones win: default, method, model, model with method, base recipe, recipe,
    --set.

    Examples:
        seedpo config show spo --set gamma=1

        seedpo config show my-recipe.yaml --all
    """
    say(shown(place, read_changes(changes), everything=everything))


def overview(width: int) -> str:
    """All sections, and the keys in none, with one line each."""
    from seedpo.keys import groups
    from seedpo.training.settings import RunConfig

    run, *sections = groups(RunConfig)
    lines = ["Sections (seedpo config explain SECTION):"]
    lines += [_short(group.name, group.text, width) for group in sections]
    return "\n".join([*lines, "", "Keys in no section:", *(_short(key.name, key.text, width) for key in run.keys)])


def explanation(name: str, width: int) -> str:
    """A key in full, or the keys of a section with one line each.

    Raises:
        ConfigError: if there is no such key or section; the message names near ones.
    """
    from seedpo.keys import suggestion
    from seedpo.training.settings import RewardRunConfig, RunConfig

    train = list(_blocks(name, RunConfig, width))
    reward = [block for block in _blocks(name, RewardRunConfig, width) if block not in train]
    if not train and not reward:
        raise ConfigError(f"unknown key {name!r}; {suggestion(name, RunConfig)}")
    return "\n\n".join([*train, *(["In seedpo reward train:"] if reward else []), *reward])


def _blocks(name: str, kind: type[Section], width: int) -> Iterator[str]:
    from seedpo.keys import groups, match

    for group in groups(kind):
        yield from (_in_full(key, kind, width) for key in group.keys if match(name, key.name))
        parts = group.name.split(".")
        if group.name and match(name, ".".join(parts[: name.count(".") + 1])):
            head = textwrap.fill(f"{group.name}: {group.text}", width)
            yield "\n".join([head, *(_short(key.name, key.text, width) for key in group.keys)])


def _in_full(key: Key, kind: type[Section], width: int) -> str:
    from seedpo.keys import yaml_text
    from seedpo.training.layers import rows

    facts = {"takes": key.values, "default": "must be given" if key.default is None else key.default}
    facts |= {name: yaml_text(row[key.name]) for name, row in rows(kind).items() if key.name in row}
    longest = max(map(len, facts)) + 1
    text = textwrap.fill(key.text, width, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([key.name, text, *(f"  {f'{name}:':{longest}} {fact}" for name, fact in facts.items())])


def _short(name: str, text: str, width: int) -> str:
    sentence = text.partition(". ")[0]
    return f"  {name:34} {textwrap.shorten(sentence, max(width - 37, 20), placeholder=' ...')}"


def shown(place: str, changes: dict[str, Any], *, everything: bool) -> str:
    """The resolved settings of a method, a recipe or a run folder.

    Args:
        place: which.
        changes: nested keys that win.
        everything: whether keys with general defaults are shown too.

    Raises:
        ConfigError: if there is no such thing, or a key or a value is wrong.
    """
    from seedpo.methods.presets import METHODS
    from seedpo.models.catalogue import MODELS
    from seedpo.settings import build_config, unknown_keys
    from seedpo.training.layers import DEFAULT, Layer, changed_keys, default_layers, marked_yaml
    from seedpo.training.settings import SCENES, RewardRunConfig, RunConfig, TrainingConfig

    kinds: tuple[type[TrainingConfig], ...] = (RunConfig, RewardRunConfig)
    kind = min(kinds, key=lambda kind: len(unknown_keys(kind, _merged(_written(place, None)))))
    written = [*_written(place, kind), Layer(name="--set", keys=changes)]
    named = _merged(written)
    model = named.get("model", kind.model_fields["model"].default)
    if kind is RunConfig:
        below = default_layers(METHODS[str(named.get("method", RunConfig.model_fields["method"].default))], model)
    else:
        below = () if "data" in named else (Layer(name="no data named", keys=SCENES),)
    config = build_config(kind, *(layer.keys for layer in (*below, *written)))
    if written[0].name == "run":
        usual = build_config(kind, *(layer.keys for layer in below)).tree()
        written[0] = Layer(name="run", keys=changed_keys(usual, build_config(kind, written[0].keys).tree()))
    lines = [] if everything else ["# what no layer sets has its default; --all shows it too"]
    lines += [marked_yaml(config.tree(), [*below, *written], everything=everything)]
    if model not in (*MODELS.names(), None, "none") and "mixed_precision" not in named:
        lines.append(f"# mixed_precision is bf16 where the GPU computes in it, since no layer but {DEFAULT} sets it")
    return "\n".join(lines)


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    from seedpo.settings import merge

    return reduce(merge, (layer.keys for layer in layers), {})


def _written(place: str, kind: type[Section] | None) -> list[Layer]:
    """What the user wrote: in a recipe, its bases first, or in the configuration of a run."""
    from seedpo.methods.presets import METHODS
    from seedpo.recipes import RECIPES, is_recipe
    from seedpo.recipes.reading import recipe_layers
    from seedpo.registry import unknown
    from seedpo.settings import read_yaml
    from seedpo.training.layers import Layer

    if is_recipe(place):
        *bases, (_, own) = recipe_layers(place, kind)
        return [*(Layer(name=f"base recipe {name}", keys=keys) for name, keys in bases), Layer(name="recipe", keys=own)]
    file = Path(place) / "config.yaml"
    if file.is_file():
        return [Layer(name="run", keys=read_yaml(file, "configuration", hint="is the folder that of a run?"))]
    if place in METHODS:
        return [Layer(name="command", keys={"method": place})]
    names = METHODS.names() + RECIPES.names()
    raise unknown("method or recipe", place, names, also="; or a .yaml file, or the folder of a run")
