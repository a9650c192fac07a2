"""Networks and pipelines in diffusers' folder format, whole and without the name of the folder they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from seedpo.errors import DataError
from seedpo.weights import read_tensors

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def save_network(network: Any, folder: Path) -> None:
    """Writes a network as one file of weights and its configuration; diffusers would cut SDXL's UNet in two."""
    network.save_pretrained(folder, max_shard_size="1TB")
    forget_origin(folder)


def forget_origin(folder: Path) -> None:
    """Takes local paths out of the configurations below a folder: they name a machine, not a model."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and Path(content.get("_name_or_path") or "").is_absolute():
            del content["_name_or_path"]
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """Reads tensors.

    Args:
        path: a safetensors file.
        what: the kind of run whose weights are expected, for the error message.

    Raises:
        DataError: if the file is missing or cut.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: the folder holds no weights of a {what} run")
    try:
        return read_tensors(path)
    except SafetensorError as error:
        raise DataError(f"{path} cannot be read as safetensors ({error}); copy it again") from error
