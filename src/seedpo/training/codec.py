"""Nested state as one safetensors file and one JSON file: no pickles, and nothing comes back changed.

A tree consists of dictionaries with string keys, lists, tensors and JSON values. Its tensors go into the safetensors
file; the JSON file holds the tree with a mark in each tensor's place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from seedpo.documents import UNREADABLE, read_json
from seedpo.files import write_text
from seedpo.run_folders import DamagedCheckpoint
from seedpo.weights import read_tensors

TENSOR_MARK = "__tensor__"
FLOAT_MARK = "__float__"


def flatten(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Splits a tree into its tensors, keyed by their path, and a JSON value that holds the rest.

    The tensors are copies on the CPU, so that neither storage shared between them nor later updates matter.

    Raises:
        TypeError: naming the path, at a value that would not come back as it was (a tuple, a number as a key, ...).
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _flatten(tree, "", tensors)


def _flatten(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        tensors[path] = node.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {TENSOR_MARK: path}
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, str) or key in (TENSOR_MARK, FLOAT_MARK):
                raise TypeError(f"state at {path or '/'!r}: the key {key!r} cannot be stored; use another text")
        return {key: _flatten(value, f"{path}/{_escape(key)}", tensors) for key, value in node.items()}
    if type(node) is list:
        return [_flatten(value, f"{path}/{index}", tensors) for index, value in enumerate(node)]
    if type(node) is float and not math.isfinite(node):
        return {FLOAT_MARK: repr(node)}
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise TypeError(f"state at {path or '/'!r}: {type(node).__name__} is neither a tensor nor a JSON value")


def _escape(key: str) -> str:
    """Keys as in JSON pointers, so that two paths never look alike."""
    return key.replace("~", "~0").replace("/", "~1")


def unflatten(tensors: Mapping[str, Tensor], values: Any) -> Any:
    """The tree that :func:`flatten` split; its tensors lie on the CPU.

    Raises:
        KeyError: if a tensor is missing.
    """
    if isinstance(values, dict):
        if TENSOR_MARK in values:
            return tensors[values[TENSOR_MARK]]
        if FLOAT_MARK in values:
            return float(values[FLOAT_MARK])
        return {key: unflatten(tensors, value) for key, value in values.items()}
    if isinstance(values, list):
        return [unflatten(tensors, value) for value in values]
    return values


def save_tree(tree: Any, path: Path) -> None:
    """Writes ``path.safetensors`` and ``path.json`` (``path`` has no ending)."""
    tensors, values = flatten(tree)
    save_file(tensors, path.with_name(path.name + ".safetensors"))
    write_text(path.with_name(path.name + ".json"), json.dumps(values, allow_nan=False) + "\n")


def load_tree(path: Path) -> Any:
    """Reads what :func:`save_tree` wrote.

    Raises:
        DamagedCheckpoint: if one of the two files is missing or damaged, or they do not fit each other.
    """
    try:
        tensors = read_tensors(path.with_name(path.name + ".safetensors"))
        return unflatten(tensors, read_json(path.with_name(path.name + ".json")))
    except (SafetensorError, *UNREADABLE) as error:
        raise DamagedCheckpoint(f"{path}.safetensors and {path.name}.json cannot be read ({error!r})") from error
