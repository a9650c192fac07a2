"""LoRAs as other trainers write them, read as the layers of a pipeline's own networks.

diffusers' format needs none of this, and diffusers' own loader renames the layers of many models' original code. What
it does not read, or reads wrongly, is read here by the names of the layers alone:

peft folders      ``adapter_model.safetensors`` beside ``adapter_config.json``: ``base_model.model.LAYER.lora_A.weight``
                  (flow_grpo, Flow-Factory, verl-omni; of several adapters each has a folder of its own)
bare names        ``LAYER.lora_A.default.weight`` (DiffSynth-Studio)
ComfyUI's         ``diffusion_model.LAYER.lora_A.weight`` (ai-toolkit, SimpleTuner, OneTrainer)
flattened names   ``lora_transformer_...``, ``lora_unet_...`` with ``lora_down``, ``lora_up`` and ``alpha`` (OneTrainer,
                  musubi-tuner, sd-scripts)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from diffusers.models.normalization import AdaLayerNormContinuous
from peft import LoraConfig
from torch import Tensor, nn

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import DataError
from seedpo.models.families import Family, widened
from seedpo.models.lora import NAME
from seedpo.models.lora_file import PEFT_CONFIG, PEFT_WEIGHTS, alphas, by_part, read_layers
from seedpo.weights import read_weights

_TENSOR = re.compile(
    r"(?P<layer>.+?)\.(?:(?P<kind>lora_A|lora_B|lora_down|lora_up|lora_magnitude_vector)(?:\.(?!bias)\w+)*|(?P<alpha>alpha))"
)
"""Names of tensors; between the factor and ``weight`` there may be the adapter's own name."""

_KINDS = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up", "lora_magnitude_vector": "norms"}

_NETWORK_LEADS = ("base_model.model.", "diffusion_model.", "lora_transformer_", "lora_unet_", "transformer.", "unet.")
"""What precedes the layers of the denoising network, by trainer."""

_TEXT_LEADS = {
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
}
"""What precedes the layers of a text encoder, and its part."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The adapter of one layer: up times down, times ``alpha`` over the rank.

    Attributes:
        down: (rank, inputs, ...).
        up: (outputs, rank, ...).
        alpha: ``None``: the rank.
        norms: of the rows, where the adapter is a DoRA.
    """

    down: Tensor
    up: Tensor
    alpha: float | None = None
    norms: Tensor | None = None

    @property
    def rank(self) -> int:
        """Columns of ``up``."""
        return len(self.down)


Layers = Mapping[str, Mapping[str, Factors]]
"""Adapters by part of a pipeline and layer of that part."""


def foreign_layers(file: Path, pipeline: Any, family: Family) -> Layers | None:
    """A LoRA's layers by the names of a pipeline's own.

    Args:
        file: in any format.
        pipeline: a loaded one of the family.
        family: of the pipeline.

    Returns:
        ``None`` if the file is in diffusers' own format, or only diffusers knows what its names stand for.

    Raises:
        DataError: if the file cannot be read, holds several adapters or half of one, or is a peft adapter of another
            model or kind.
    """
    weights, config = read_weights(file), _peft_config(file)
    own = tuple(f"{part}." for part in (family.network, *family.text_parts))
    if config is None and all(name.startswith(own) and not name.endswith(".alpha") for name in weights):
        return None
    factors = _factors(file, weights)
    placed = None if factors is None else _placed(factors, pipeline, family)
    if config is None:
        return placed
    if placed is None:
        stranger = _stranger(weights, pipeline, family)
        raise DataError(
            f"{file} holds {stranger!r}, which is no LoRA of a layer of a {type(pipeline).__name__}; name the model "
            "that it was trained on"
        )
    return {part: _scaled(layers, config) for part, layers in placed.items()}


def tensors_of(layers: Layers) -> dict[str, Tensor]:
    """Adapters as tensors, named as in :func:`seedpo.models.lora_file.read_layers`."""
    named = {f"{part}.{name}": factors for part, own in layers.items() for name, factors in own.items()}
    tensors = {f"{name}.lora_A.weight": factors.down for name, factors in named.items()}
    tensors |= {f"{name}.lora_B.weight": factors.up for name, factors in named.items()}
    return tensors | {f"{name}.lora_magnitude_vector": f.norms for name, f in named.items() if f.norms is not None}


def add_layers(pipeline: Any, layers: Layers) -> None:
    """Adds adapters to the parts of a pipeline, in place.

    Raises:
        ValueError: if the sizes of a layer are others.
    """
    for part, tensors in by_part(tensors_of(layers)).items():
        network, config = getattr(pipeline, part), _lora_config(layers[part])
        if hasattr(network, "load_lora_adapter"):
            network.load_lora_adapter(tensors, prefix=None, adapter_name=NAME, metadata=config, low_cpu_mem_usage=True)
        else:
            network.load_adapter(
                adapter_name=NAME,
                adapter_state_dict=tensors,
                peft_config=LoraConfig(**config, inference_mode=True),
                low_cpu_mem_usage=True,
            )


def strange_layers(file: Path, pipeline: Any, family: Family) -> list[str]:
    """Layers in a file that a pipeline does not have, by diffusers' names; its loader would leave them out.

    Args:
        file: of which :func:`foreign_layers` gave none.
        pipeline: a loaded one of the family.
        family: of the pipeline.
    """
    network = getattr(pipeline, family.network)
    content = pipeline.lora_state_dict(file.parent, weight_name=file.name, unet_config=network.config)
    names = read_layers(content[0] if isinstance(content, tuple) else content)
    own, lead = {name for name, _ in network.named_modules()}, f"{family.network}."
    text = tuple(f"{part}." for part in family.text_parts)
    matches = {name: _TENSOR.fullmatch(name.removeprefix(lead)) for name in names if not name.startswith(text)}
    return [
        name
        for name, match in matches.items()
        if not name.startswith(lead) or (match is not None and match["layer"] not in own)
    ]


def _peft_config(file: Path) -> dict[str, Any] | None:
    """What lies beside a file of peft; ``None`` for other files."""
    if file.name != PEFT_WEIGHTS:
        return None
    path = file.with_name(PEFT_CONFIG)
    try:
        config = dict(read_json(path))
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read ({error}); copy it beside {file.name}, it holds the LoRA's alpha"
        ) from error
    kind = str(config.get("peft_type", "LORA"))
    if kind.upper() != "LORA":
        raise DataError(f"{file} is an adapter of the kind {kind}, not a LoRA; name a LoRA")
    return config


def _scaled(layers: Mapping[str, Factors], config: Mapping[str, Any]) -> dict[str, Factors]:
    """Layers with the alphas of a peft configuration; with ``use_rslora`` alpha counts by the root of the rank."""
    known = alphas(layers, {"alpha_pattern": config.get("alpha_pattern") or {}, "lora_alpha": config["lora_alpha"]})
    rooted = bool(config.get("use_rslora"))
    return {
        name: replace(factors, alpha=known[name] * (sqrt(factors.rank) if rooted else 1.0))
        for name, factors in layers.items()
    }


def _factors(file: Path, weights: Mapping[str, Tensor]) -> dict[str, Factors] | None:
    """Adapters by layer, as the file names layers; ``None`` if a tensor is none of a LoRA."""
    layers: dict[str, dict[str, Any]] = {}
    for name, value in weights.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            return None
        kind = "alpha" if match["alpha"] else _KINDS[match["kind"]]
        own = layers.setdefault(match["layer"], {})
        if kind in own:
            raise DataError(f"{file} holds several adapters ({name!r} is one of two); save the one that you mean alone")
        own[kind] = float(value) if kind == "alpha" else widened(value)
    for layer, own in layers.items():
        if missing := {"down", "up"} - own.keys():
            raise DataError(f"{file}: the layer {layer!r} has no factor {min(missing)!r}; copy the file again")
    return {layer: Factors(**own) for layer, own in layers.items()}


def _placed(factors: Mapping[str, Factors], pipeline: Any, family: Family) -> Layers | None:
    """Adapters under the names of a pipeline's own layers; ``None`` if it lacks one of them."""
    names, placed = _Names(pipeline, family), dict[str, dict[str, Factors]]()
    for layer, own in factors.items():
        place = names.place(layer)
        if place is None:
            return None
        part, targets = place
        for target, share in zip(targets, names.shares(part, targets, own, layer), strict=True):
            placed.setdefault(part, {})[target] = share
    return placed


def _stranger(weights: Mapping[str, Tensor], pipeline: Any, family: Family) -> str:
    """The first tensor whose layer a pipeline does not have."""
    names = _Names(pipeline, family)
    matches = {name: _TENSOR.fullmatch(name) for name in weights}
    return next(name for name, match in matches.items() if match is None or names.place(match["layer"]) is None)


class _Names:
    """The names that a pipeline's layers go by.

    Args:
        pipeline: a loaded one.
        family: of the pipeline.
    """

    def __init__(self, pipeline: Any, family: Family) -> None:
        self.network = family.network
        self.modules: dict[str, dict[str, nn.Module]] = {}
        for part in (family.network, *family.text_parts):
            network = getattr(pipeline, part, None)
            if network is not None:
                self.modules[part] = {name: module for name, module in network.named_modules() if name}
        self.flat = {part: {name.replace(".", "_"): name for name in modules} for part, modules in self.modules.items()}
        self.original = [
            (re.compile(re.escape(form).replace(r"\{\}", r"(\d+)").replace(r"\.", "[._]")), targets)
            for form, targets in family.original_layers.items()
        ]

    def place(self, layer: str) -> tuple[str, tuple[str, ...]] | None:
        """The part and the layers that a file's name of a layer stands for; several share its rows."""
        for part, name in self._readings(layer):
            if name in self.modules[part]:
                return part, (name,)
            if name in self.flat[part]:
                return part, (self.flat[part][name],)
            if part == self.network:
                for form, targets in self.original:
                    if match := form.fullmatch(name):
                        filled = tuple(target.format(*match.groups()) for target in targets)
                        return (part, filled) if all(target in self.modules[part] for target in filled) else None
        return None

    def _readings(self, layer: str) -> Iterator[tuple[str, str]]:
        """Parts and names without what a trainer puts before them."""
        for lead in _NETWORK_LEADS:
            if layer.startswith(lead):
                yield self.network, layer.removeprefix(lead)
        for lead, part in _TEXT_LEADS.items():
            if layer.startswith(lead) and part in self.modules:
                name = layer.removeprefix(lead)
                yield part, name
                yield part, re.sub(r"^text_model[._]", "", name)
        yield self.network, layer

    def shares(self, part: str, targets: tuple[str, ...], factors: Factors, layer: str) -> list[Factors]:
        """The adapter of each of the layers that share the rows of one.

        diffusers' last normalisations have the scale before the shift, the models' original code has it behind.
        """
        rows = list(factors.up.chunk(len(targets)))
        if layer.endswith(("adaLN_modulation.1", "adaLN_modulation_1")):
            (target,) = targets
            if isinstance(self.modules[part][target.rpartition(".")[0]], AdaLayerNormContinuous):
                rows = [torch.cat(rows[0].chunk(2)[::-1])]
        return [replace(factors, up=up.contiguous()) for up in rows]


def _lora_config(layers: Mapping[str, Factors]) -> dict[str, Any]:
    """The configuration of adapters in peft; patterns name layers from their beginning."""
    ranks = {name: factors.rank for name, factors in layers.items()}
    scales = {name: float(f.rank if f.alpha is None else f.alpha) for name, f in layers.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, scales))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(name)}": value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{re.escape(name)}": value for name, value in scales.items() if value != alpha},
        "target_modules": list(layers),
        "use_dora": any(factors.norms is not None for factors in layers.values()),
        "lora_bias": False,
    }
