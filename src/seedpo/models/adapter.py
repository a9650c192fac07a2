"""What is trained of a network, and what stays its reference: a LoRA adapter, or all weights beside a frozen copy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol, Self

from safetensors.torch import save_file
from torch import Tensor, nn

from seedpo.documents import read_json
from seedpo.errors import DataError
from seedpo.models.families import Family
from seedpo.models.lora import add_layers, description, scaled_adapters, set_dropout, unread_layers
from seedpo.models.lora_file import LORA_FILE, METADATA_KEY, PART, described, read_layers
from seedpo.models.lora_tensors import fill_layers, layers_of, written_layers
from seedpo.models.settings import LoraForm
from seedpo.models.weight_copy import WeightCopy, copied, interpolated
from seedpo.weights import read_weights

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


class Adapter(Protocol):
    """What is trained of a pipeline, and its reference."""

    frozen: nn.Module | None
    """A copy that is the reference; ``None`` if the network itself can answer as the reference does."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of the trained weights, in a fixed order."""

    def reference(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        """Within this context the network that is yielded answers as the present reference does.

        Args:
            module: the trained network, possibly wrapped for several processes.
        """

    def initial(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        """Within this context the network that is yielded answers as the model before training does.

        Args:
            module: the trained network, possibly wrapped for several processes.
        """

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Within this context the trained weights have another strength: 0 is the model before training.

        Raises:
            ConfigError: if they are of a kind that has no strength but 1.
        """

    def move_reference(self) -> None:
        """Makes the present weights the reference."""

    def average_reference(self, decay: float) -> None:
        """The reference takes in the present weights: see :meth:`WeightCopy.average`. It must have been moved once."""

    def copies(self) -> tuple[WeightCopy, ...]:
        """All other values of the trained weights that are held beside them."""

    def reference_weights(self) -> Mapping[str, Tensor]:
        """Values of the trained weights that the reference has, by name; empty if it needs none of its own."""

    @property
    def form(self) -> str:
        """How what is trained is built, beside its tensors; empty for whole networks."""

    def save(self, folder: Path) -> None:
        """Writes the trained weights in diffusers' format."""

    def load(self, folder: Path) -> None:
        """Reads what :meth:`save` wrote into the very tensors that are trained; the reference does not move.

        Raises:
            DataError: if the file is missing or cut, or its keys are not those of this network.
        """


class LoraAdapter:
    """A low-rank adapter; the networks with the adapter switched off are the reference, so there is no second one.

    A reference that moved has an adapter of its own, beside the same networks.

    Args:
        networks: parts of a pipeline that carry the adapter, by name; their weights are in float32.
        family: of the pipeline.
        dropout: share of the adapter's inputs that is left out in passes that have a gradient.
        continued: whether the model before training is that with the adapter as it is now.
    """

    frozen: nn.Module | None = None

    def __init__(
        self, networks: Mapping[str, Any], family: Family, *, dropout: float = 0.0, continued: bool = False
    ) -> None:
        self.networks, self.family = dict(networks), family
        for network in self.networks.values():
            network.requires_grad_(False)
            set_dropout(network, dropout)
        for parameter in self.parameters().values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        self._initial = WeightCopy(self.parameters) if continued else None
        self._moved: WeightCopy | None = None

    @classmethod
    def new(cls, networks: Mapping[str, Any], family: Family, form: LoraForm, *, seed: int = 0) -> Self:
        """An adapter that changes nothing yet, added to networks in place.

        Args:
            networks: of a pipeline of the family, by part, in float32.
            family: names the layers that carry it.
            form: of the adapter.
            seed: of its first factors; the second are 0. The global random state is left alone.

        Raises:
            ConfigError: if the form does not fit the network.
            DataError: if a network has none of the layers.
        """
        add_layers(networks, family, form, seed=seed)
        return cls(networks, family, dropout=form.dropout)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's factors, and the norms of a DoRA; of several parts each name begins with its part."""
        found: dict[str, nn.Parameter] = {}
        for part, network in self.networks.items():
            lead = f"{part}." if len(self.networks) > 1 else ""
            unread = unread_layers(network, self.family, part)
            for name, value in network.named_parameters():
                if PART in name and not any(layer in name for layer in unread):
                    found[lead + name] = value
        return found

    def reference(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        """The networks with the adapter that was kept last, or as before training."""
        return self._with(self._moved or self._initial, module)

    def initial(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        """The networks without the adapter, or with the one that training continues."""
        return self._with(self._initial, module)

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The product times ``strength``; of an adapter that training continues, its factors between first and last."""
        if self._initial is not None:
            return interpolated(self.parameters, self._initial.values, strength)
        return scaled_adapters(self.networks.values(), strength)

    @contextmanager
    def _with(self, copy: WeightCopy | None, module: nn.Module) -> Iterator[nn.Module]:
        with self._switched_off() if copy is None else copy.in_place():
            yield module

    @contextmanager
    def _switched_off(self) -> Iterator[None]:
        for network in self.networks.values():
            network.disable_adapters()
        try:
            yield
        finally:
            for network in self.networks.values():
                network.enable_adapters()

    def move_reference(self) -> None:
        """Keeps a copy of the adapter."""
        self._moved = copied(self.parameters, into=self._moved)

    def average_reference(self, decay: float) -> None:
        """Averages factors: their product is not the average of the products."""
        assert self._moved is not None
        self._moved.average(decay)

    def copies(self) -> tuple[WeightCopy, ...]:
        """Of the adapter that training continues, and of that of the reference."""
        return tuple(copy for copy in (self._initial, self._moved) if copy is not None)

    def reference_weights(self) -> Mapping[str, Tensor]:
        """The adapter of the reference, if it has one."""
        copy = self._moved or self._initial
        return {} if copy is None else copy.values

    @property
    def form(self) -> str:
        """What a file says of the adapter beside its tensors."""
        return described({part: description(network) for part, network in self.networks.items()})

    def save(self, folder: Path) -> None:
        """Writes :data:`LORA_FILE`, which ``pipe.load_lora_weights`` reads."""
        layers = written_layers(layers_of(self.networks, self.family), self.family)
        folder.mkdir(parents=True, exist_ok=True)
        # One entry of metadata: safetensors writes several in any order, and equal weights are to be equal files.
        save_file(layers, folder / LORA_FILE, {METADATA_KEY: self.form})

    def load(self, folder: Path) -> None:
        """Reads :data:`LORA_FILE`."""
        file = folder / LORA_FILE
        layers = read_layers(read_weights(file))
        require_same_tensors(file, layers, layers_of(self.networks, self.family))
        fill_layers(self.networks, self.family, layers)


class FullAdapter:
    """All weights of a network, beside a frozen copy that is the reference.

    A reference that moved is a copy of the weights in their own number format: an average in half precision would
    not move at all.

    Args:
        network: in float32.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.frozen: nn.Module | None = deepcopy(network).requires_grad_(False).eval()
        self._moved: WeightCopy | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """All weights."""
        return dict(self.network.named_parameters())

    @contextmanager
    def reference(self, module: nn.Module) -> Iterator[nn.Module]:
        """The network with the weights that were kept last, or the frozen copy."""
        if self._moved is None:
            yield module if self.frozen is None else self.frozen
            return
        with self._moved.in_place():
            yield module

    @contextmanager
    def initial(self, module: nn.Module) -> Iterator[nn.Module]:
        """The frozen copy."""
        yield module if self.frozen is None else self.frozen

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """All weights between the frozen copy's and their own."""
        assert self.frozen is not None
        return interpolated(self.parameters, dict(self.frozen.named_parameters()), strength)

    def move_reference(self) -> None:
        """Keeps a copy of the weights."""
        self._moved = copied(self.parameters, into=self._moved)

    def average_reference(self, decay: float) -> None:
        """Averages all weights."""
        assert self._moved is not None
        self._moved.average(decay)

    def copies(self) -> tuple[WeightCopy, ...]:
        """The weights of a reference that moved."""
        return () if self._moved is None else (self._moved,)

    def reference_weights(self) -> Mapping[str, Tensor]:
        """Those of a reference that moved; the frozen copy is of the loaded model."""
        return {} if self._moved is None else self._moved.values

    @property
    def form(self) -> str:
        """Empty."""
        return ""

    def save(self, folder: Path) -> None:
        """Writes the network as one file of weights and its configuration; diffusers would split a large one."""
        self.network.save_pretrained(folder, max_shard_size="1TB")
        forget_origin(folder)

    def load(self, folder: Path) -> None:
        """Reads the file of weights."""
        load_network(self.network, folder)


def load_network(network: nn.Module, folder: Path) -> None:
    """Fills a network with the weights that :class:`FullAdapter` saved.

    Raises:
        DataError: as :meth:`Adapter.load`.
    """
    weights = read_weights(folder / WEIGHTS_FILE)
    require_same_tensors(folder / WEIGHTS_FILE, weights, network.state_dict())
    network.load_state_dict(weights)


def forget_origin(folder: Path) -> None:
    """Removes local paths from the configurations below a folder: they name a machine, not a model."""
    for path in folder.rglob("*.json"):
        content = read_json(path)
        if isinstance(content, dict) and Path(content.get("_name_or_path") or "").is_absolute():
            del content["_name_or_path"]
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def require_same_tensors(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuses weights whose names or shapes are not the expected ones.

    Raises:
        DataError: if one is missing, superfluous or of another shape.
    """
    wrong = set(weights.keys() ^ expected.keys()) | {
        name for name in weights.keys() & expected.keys() if weights[name].shape != expected[name].shape
    }
    if wrong:
        raise DataError(f"{path} does not fit this model: {len(wrong)} tensors differ, for example {min(wrong)!r}")
