"""What is trained of a network, and what stays its reference: a LoRA adapter, or all weights beside a frozen copy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from seedpo.errors import DataError
from seedpo.models.families import Family, family_of
from seedpo.weights import read_weights

LORA_FILE = "pytorch_lora_weights.safetensors"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


class Adapter(Protocol):
    """What is trained of a network, and its reference."""

    frozen: nn.Module | None
    """A copy that is the reference; ``None`` if the network itself can answer as the reference does."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of the trained weights, in a fixed order."""

    def reference(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        """Within this context the network that is yielded answers as the reference does.

        Args:
            module: the trained network, possibly wrapped for several processes.
        """

    def move_reference(self) -> None:
        """Makes the present weights the reference."""

    def save(self, folder: Path) -> None:
        """Writes the trained weights in diffusers' format."""

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained; the reference does not move.

        Raises:
            DataError: if the file is missing or cut, or its keys are not those of this network.
        """


class LoraAdapter:
    """A low-rank adapter; the network with the adapter switched off is the reference, so there is no second one.

    Args:
        network: of a pipeline of the family; the adapter is added in place and changes nothing yet. Its weights are in
            float32. The global random state is left alone.
        family: names the layers that carry it.
        rank: rank of each factor pair, and its alpha: the adapter's product is not scaled.
        seed: seed of the first factors; the second are 0.

    Raises:
        DataError: if the network has none of these layers.
    """

    frozen: nn.Module | None = None

    def __init__(self, network: Any, family: Family, *, rank: int, seed: int = 0) -> None:
        self.network, self.family = network, family
        self._moved: dict[str, Tensor] = {}
        endings = tuple(f".{layer}" for layer in family.adapter_layers)
        if not any(name.endswith(endings) for name, _ in network.named_modules()):
            raise DataError(
                f"the network has none of the attention layers that carry an adapter "
                f"({', '.join(family.adapter_layers)}); set adapter to full, or use another model"
            )
        network.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.add_adapter(
                LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    init_lora_weights="gaussian",
                    target_modules=list(family.adapter_layers),
                )
            )
        for parameter in self.parameters().values():
            parameter.data = parameter.data.float()

    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's factors."""
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    @contextmanager
    def reference(self, module: nn.Module) -> Iterator[nn.Module]:
        """The network without the adapter, or with the adapter that :meth:`move_reference` kept."""
        self._exchange() if self._moved else self.network.disable_adapters()
        try:
            yield module
        finally:
            self._exchange() if self._moved else self.network.enable_adapters()

    def move_reference(self) -> None:
        """Keeps a copy of the adapter."""
        self._moved = {name: value.detach().clone() for name, value in self.parameters().items()}

    def _exchange(self) -> None:
        """Swaps the trained adapter and that of the reference."""
        for name, parameter in self.parameters().items():
            parameter.data, self._moved[name] = self._moved[name], parameter.data

    def save(self, folder: Path) -> None:
        """Writes :data:`LORA_FILE`, which ``pipe.load_lora_weights`` reads."""
        layers = self.family.adapter_names(get_peft_model_state_dict(self.network))
        self.family.pipeline.save_lora_weights(folder, **{f"{self.family.network}_lora_layers": layers})

    def load(self, folder: Path) -> None:
        """Reads :data:`LORA_FILE`."""
        weights = lora_layers(read_weights(folder / LORA_FILE))
        _require_same_tensors(folder / LORA_FILE, weights, get_peft_model_state_dict(self.network))
        set_peft_model_state_dict(self.network, weights)


class FullAdapter:
    """All weights of a network, beside a frozen copy that is the reference.

    Args:
        network: in float32.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.frozen: nn.Module | None = deepcopy(network).requires_grad_(False).eval()

    def parameters(self) -> dict[str, nn.Parameter]:
        """All weights."""
        return dict(self.network.named_parameters())

    @contextmanager
    def reference(self, module: nn.Module) -> Iterator[nn.Module]:
        """The frozen copy."""
        yield module if self.frozen is None else self.frozen

    def move_reference(self) -> None:
        """Copies the present weights into the frozen copy."""
        if self.frozen is not None:
            self.frozen.load_state_dict(self.network.state_dict())

    def save(self, folder: Path) -> None:
        """Writes the network as one file of weights and its configuration; diffusers would split a large one."""
        self.network.save_pretrained(folder, max_shard_size="1TB")
        forget_origin(folder)

    def load(self, folder: Path) -> None:
        """Reads the file of weights."""
        load_network(self.network, folder)


def add_trained(pipeline: Any, folder: Path, *, adapter: Literal["lora", "full"], lora_rank: int) -> None:
    """Gives a pipeline the trained weights of a run, to draw with them; no copy is made and nothing can be trained.

    Args:
        pipeline: a loaded pipeline of the base model, changed in place.
        folder: what an adapter's ``save`` wrote.
        adapter: what was trained.
        lora_rank: rank of the adapter.

    Raises:
        DataError: as :meth:`Adapter.load`.
    """
    family = family_of(pipeline)
    network = getattr(pipeline, family.network)
    if adapter == "lora":
        LoraAdapter(network, family, rank=lora_rank).load(folder)
    else:
        load_network(network, folder)


def load_network(network: nn.Module, folder: Path) -> None:
    """Fills a network with the weights that :class:`FullAdapter` saved.

    Raises:
        DataError: as :meth:`Adapter.load`.
    """
    weights = read_weights(folder / WEIGHTS_FILE)
    _require_same_tensors(folder / WEIGHTS_FILE, weights, network.state_dict())
    network.load_state_dict(weights)


def lora_layers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of :data:`LORA_FILE` under the names of peft: ``mid_block.[...].to_q.lora_A.weight``."""
    return {
        name.partition(".")[2].replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): value
        for name, value in weights.items()
    }


def forget_origin(folder: Path) -> None:
    """Removes local paths from the configurations below a folder: they name a machine, not a model."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and Path(content.get("_name_or_path") or "").is_absolute():
            del content["_name_or_path"]
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _require_same_tensors(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    wrong = set(weights.keys() ^ expected.keys()) | {
        name for name in weights.keys() & expected.keys() if weights[name].shape != expected[name].shape
    }
    if wrong:
        raise DataError(f"{path} does not fit this model: {len(wrong)} tensors differ, for example {min(wrong)!r}")
