"""``seedpo init``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from seedpo.cli.shared import say
from seedpo.errors import ConfigError

USUAL_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def init_command(
    path: Annotated[Path, typer.Argument(metavar="[FILE.yaml]", help="Recipe to write; never overwritten.")] = Path(
        "my-lora.yaml"
    ),
    data: Annotated[
        str | None,
        typer.Option(metavar="PAIRS", help="Your pairs: a file, a folder, a glob or hub:owner/name; docs/data.md."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to train: a folder, a .safetensors file, or owner/name on the hub.")
    ] = None,
    memory: Annotated[float | None, typer.Option(min=1.0, metavar="GB", help="Memory of your GPU.")] = None,
) -> None:
    """Write a short recipe that trains a LoRA on your own pairs and fits your GPU.

    Asks for what no option says. Looks at the pairs and the model, chooses one of `seedpo list recipes`, and sets the
    length of the run: about 20 visits of each pair.

    Examples:
        seedpo init

        seedpo init my-lora.yaml --data my_pairs/ --model stable-diffusion-v1-5/stable-diffusion-v1-5 --memory 12
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path} must end in .yaml; write for example seedpo init {path}.yaml")
    if path.exists():
        raise ConfigError(f"{path} exists already and is not overwritten; choose another name, or remove it")
    data = data or _answer("--data", "Your pairs (file, folder or glob)", None)
    model = model or _answer("--model", "Model", USUAL_MODEL)
    memory = memory or _memory()
    from seedpo.files import write_text
    from seedpo.planning.first_recipe import first_recipe

    recipe = first_recipe(path, data=data, model=model, memory=memory)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, recipe.text)
    for note in recipe.notes:
        say(note)
    say(f"\n{path}:\n\n{recipe.text}\nnext:")
    filling = [(f"seedpo cache build {path}", "latents, prompts and reference, once")] if recipe.caches else []
    for command, why in (
        (f"seedpo data check {data} --out check", "counts, bad rows, a sheet of pairs to look at"),
        *filling,
        (f"seedpo train {path} --out runs/{path.stem} --dry-run", "one batch, one forward pass: nothing is written"),
        (f"seedpo train {path} --out runs/{path.stem}", "killed? add --resume latest"),
        (f"seedpo report runs/{path.stem} --out report.html", "pictures first; is it better than its base?"),
    ):
        say(f"  {command:62} # {why}")


def _answer(option: str, question: str, default: str | None) -> str:
    """What the user types.

    Raises:
        ConfigError: if there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise ConfigError(f"{option} is missing, and there is no terminal to ask at; add {option}")
    return str(typer.prompt(question, default=default))


def _memory() -> float:
    text = _answer("--memory", "Memory of your GPU in GB", "12")
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--memory {text!r} is not a number of GB; write for example 12") from error
