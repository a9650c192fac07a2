"""Versions of rewards: what tells that scores of two runs or servers can be compared."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seedpo.rewards.named import CheckedReward, SummedReward
from seedpo.rewards.user_code import UserReward


def version_of(reward: CheckedReward, *settings: str) -> str:
    """The version of a reward: a hash of all that is known to decide its scores.

    That is: the package's version, the names and weights of its parts, the weights of their networks or the file of the
    user's code, and the versions that other servers state.

    Args:
        reward: as it is loaded.
        settings: what else decides them.
    """
    facts = [metadata.version("seedpo"), *settings, *_facts(reward)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _facts(reward: Any) -> list[str]:
    if isinstance(reward, CheckedReward):
        return [reward.name, *_facts(reward.reward)]
    if isinstance(reward, SummedReward):
        return [fact for part, term in reward.parts for fact in (term.model_dump_json(), *_facts(part))]
    if isinstance(reward, UserReward):
        file = Path(reward.file)
        return [hashlib.sha256(file.read_bytes()).hexdigest()] if file.is_file() else []
    if isinstance(version := getattr(reward, "version", None), str):
        return [version]
    networks = [value for value in getattr(reward, "__dict__", {}).values() if isinstance(value, nn.Module)]
    return [_weights_hash(network) for network in networks]


@torch.no_grad()
def _weights_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
