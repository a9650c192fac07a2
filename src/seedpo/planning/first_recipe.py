"""A first recipe for somebody's own pairs: short, commented, and made to fit the data and the memory of a GPU."""

from __future__ import annotations

import math
import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seedpo.data.catalogue import DATA
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import ConfigError
from seedpo.files import exists
from seedpo.models.catalogue import MODELS
from seedpo.models.names import is_hub_name, pipeline_class_name
from seedpo.models.pipeline_classes import FAMILIES, Checkpoint, FamilyEntry
from seedpo.recipes import RECIPES
from seedpo.recipes.reading import read_recipe

LARGE_FILE = 4.5e9
"""Bytes: single files of Stable Diffusion XL are larger, those of 1.x and 2.x smaller, in half precision and full."""

VISITS = 20
"""How often each pair is seen: enough for an adapter to learn, too few to learn the pairs by heart."""

CACHED_VISITS = 4
"""Draws of time step and noise of each pair for which the reference is computed: its cost falls to a fifth."""

FEW_PAIRS = 40
"""With fewer pairs none are kept out for validation: a tenth of them would tell nothing."""

FEWEST_STEPS = 40
"""Shorter runs would be over before the learning rate has reached its peak and fallen again."""


@dataclass(frozen=True, kw_only=True)
class FirstRecipe:
    """What `seedpo init` writes.

    Attributes:
        text: YAML with comments.
        notes: what was assumed, for the terminal.
        caches: whether it names a cache folder, which is to be filled first.
    """

    text: str
    notes: tuple[str, ...]
    caches: bool = False


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a model is, from its name.

    Attributes:
        family: of its pipeline class.
        checkpoint: the well-known model of that name, if it is one.
        why: how that was told.
    """

    family: FamilyEntry
    why: str
    checkpoint: Checkpoint | None = None

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.checkpoint.name.partition("/")[2] if self.checkpoint else self.family.summary

    def recipe(self, memory: float) -> str:
        """The recipe for the most memory that a GPU of so many GB has.

        Raises:
            ConfigError: if there is none, or every recipe needs more.
        """
        names = (self.checkpoint and self.checkpoint.recipes) or self.family.recipes
        needs = {memory_of(name): name for name in names}
        if not needs:
            raise ConfigError(f"there is no recipe for {self.title}; write one: docs/recipes.md")
        fitting = [size for size in needs if size <= memory]
        if not fitting:
            raise ConfigError(
                f"memory = {memory:g} GB is too little for {self.title}: the smallest recipe, {needs[min(needs)]}, "
                f"needs {min(needs)} GB; use a larger GPU"
            )
        return needs[max(fitting)]


def memory_of(recipe: str) -> int:
    """GB of the GPU that a recipe `lora-*-24gb` is for."""
    return int(recipe.rpartition("-")[2].removesuffix("gb"))


def first_recipe(path: Path, *, data: str, model: str, memory: float) -> FirstRecipe:
    """Looks at data and model, and chooses a recipe of the package and the values that fit.

    Args:
        path: of the file to write; its paths begin in its folder.
        data: the pairs, as ``data`` of a run.
        model: as ``model`` of a run.
        memory: of the GPU, in GB.

    Raises:
        ConfigError: if there is no model of that form, or no recipe for so little memory.
        DataError: if the pairs cannot be read.
    """
    kind = kind_of_name(model)
    base = kind.recipe(memory)
    keys = read_recipe(base)
    pairs = load_pairs(data, PairsConfig())
    count = None if pairs.sequential else len(pairs)
    validation = keys["pairs"]["validation"] if count is not None and count >= FEW_PAIRS else None
    caches = kind.family.process == "flow matching" and count is not None
    lines = [
        f"# A LoRA for {kind.title}, from {'a stream of' if count is None else count} pairs, for {memory:g} GB.",
        f"# Only what differs from {base} stands here: `seedpo config show {path.name} --all` shows every key.",
        _line("base", base, "a recipe of the package; `seedpo list recipes`"),
        _line("data", relative(data, path.parent, DATA.names()), "" if count is None else f"{count} pairs"),
        _line("model", relative(model, path.parent, MODELS.names()), kind.why),
        *_section_of_pairs(own_resolution(model), keys, validation),
    ]
    if caches:
        lines += [
            "cache:",
            _line("  folder", f"{path.stem}-cache", "filled by `seedpo cache build`: text encoders leave the GPU"),
            _line("  reference", True, "the reference's passes are made once"),
            _line("  visits", CACHED_VISITS, "draws of each pair, which then repeat"),
        ]
    if count is not None:
        steps, trained = steps_for(count, keys, validation)
        every = max(10, math.ceil(steps / 5))
        kept_out = f"; {count - trained} are kept out" if validation else ""
        lines += [
            _line("max_steps", steps, f"about {VISITS} visits of each of {trained} pairs{kept_out}"),
            _line("evaluate_every", every, "steps"),
            _line("checkpoint_every", every, "steps"),
        ]
    beta = keys["beta"]
    lines += [
        "# Judge the images by PickScore as well (4 GB from the hub, 2 GB on the GPU):",
        "# evaluation: {rewards: [pickscore]}",
        "# The entropy term of SEE-DPO, and the control that belongs beside it:",
        "# gamma: 0.001",
        f"# beta: {beta * 1.001:g}",
    ]
    notes = [f"{model}: {kind.why}", f"{base}: {RECIPES[base].summary}"]
    if kind.checkpoint is None:
        notes.append(f"the memory is that of {keys['model']}; `seedpo plan {path.name} --gpu NAME` plans for yours")
    if validation is None:
        notes.append(f"no pairs are kept out for validation: that needs {FEW_PAIRS} pairs in files")
    return FirstRecipe(text="\n".join(lines) + "\n", notes=tuple(notes), caches=caches)


def _section_of_pairs(resolution: int | None, keys: dict[str, Any], validation: float | None) -> list[str]:
    """The section ``pairs``, where it differs from that of the base."""
    section: dict[str, Any] = {}
    if resolution not in (None, keys["pairs"]["resolution"]):
        section["resolution"] = (resolution, "the model's own size, in pixels")
    if validation is None:
        section["validation"] = (None, "too few pairs to keep some out, or a stream: name a set of its own here")
    lines = [_line(f"  {key}", value, note) for key, (value, note) in section.items()]
    return ["pairs:", *lines] if lines else []


def kind_of_name(model: str) -> Kind:
    """What a model is by its folder, file or name.

    Raises:
        ConfigError: if it is a registered model, which has settings of its own, or a folder of another class.
        DataError: if the folder's ``model_index.json`` cannot be read.
    """
    if model in MODELS:
        raise ConfigError(
            f"model = {model} is an embedded one, whose settings need no recipe; write `seedpo train diffusion-dpo "
            f"--set model={model} --set data=...`"
        )
    path = Path(model)
    index = path / "model_index.json"
    if index.is_file():
        name = pipeline_class_name(index)
        return Kind(family=FAMILIES[name], why=f"{name}, as its model_index.json says")
    if path.is_dir():
        raise ConfigError(f"model = {model} is a folder without model_index.json; name the folder of a pipeline")
    if path.is_file():
        large = path.stat().st_size > LARGE_FILE
        family = FAMILIES["StableDiffusionXLPipeline" if large else "StableDiffusionPipeline"]
        return Kind(family=family, why=f"taken for {family.summary} by the size of the file")
    if not is_hub_name(model):
        raise ConfigError(f"model = {model} does not exist; name a folder, a .safetensors file, or owner/name")
    return _kind_on_the_hub(model)


def _kind_on_the_hub(model: str) -> Kind:
    repository = model.partition("@")[0]
    for family in FAMILIES.entries:
        for checkpoint in family.checkpoints:
            if checkpoint.name == repository:
                return Kind(family=family, checkpoint=checkpoint, why=f"{family.summary}, a well-known model")
    words = [(word, family) for family in FAMILIES.entries for word in family.words if word in model.lower()]
    _, family = max(words, key=lambda entry: len(entry[0]), default=("", FAMILIES["StableDiffusionPipeline"]))
    return Kind(family=family, why=f"taken for {family.summary} by its name")


def steps_for(pairs: int, keys: dict[str, Any], validation: float | None) -> tuple[int, int]:
    """Optimiser steps for :data:`VISITS` visits of each pair, and the pairs that are trained on."""
    trained = pairs - round(pairs * (validation or 0.0))
    batch = keys["batch_size"] * keys["gradient_accumulation_steps"]
    return max(FEWEST_STEPS, math.ceil(VISITS * trained / batch)), trained


def own_resolution(model: str) -> int | None:
    """Height and width in pixels for which a pipeline in a folder was made; ``None`` if the folder does not say so."""
    try:
        names = read_json(Path(model) / "model_index.json")
        network = "unet" if "unet" in names else "transformer"
        side = read_json(Path(model) / network / "config.json")["sample_size"]
        vae = read_json(Path(model) / "vae" / "config.json")
        blocks = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
        pixels_per_latent: int = 2 ** (len(blocks) - 1)
        return int(side) * pixels_per_latent
    except UNREADABLE:
        return None


def relative(name: str, folder: Path, names: list[str]) -> str:
    """A path as it is written in a file of a folder; other names as they are."""
    if name in names or not exists(name):
        return name
    path = os.path.relpath(Path(name).expanduser(), folder)
    return path if path.startswith("..") else f"./{path}"


def _line(key: str, value: Any, note: str) -> str:
    text = f"{key}: {yaml.safe_dump(value).splitlines()[0]}"
    return f"{text:38} # {note}" if note else text
