"""How this process was launched: what accelerate, torchrun and ``seedpo --processes`` say in variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from seedpo.errors import ConfigError
from seedpo.processes import is_one_of_several

_FSDP = "ACCELERATE_USE_FSDP"


def _says_yes(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes")


def sharding_is_asked_for() -> bool:
    """Whether an accelerate file or ``--shard`` asks for shards and there is more than one process to shard over."""
    return _says_yes(_FSDP) and is_one_of_several()


def check_launch(*, gpus: int) -> None:
    """Refuses what the training loop does not handle, before anything is loaded.

    Args:
        gpus: CUDA devices that this process can see; 0 on the CPU.

    Raises:
        ConfigError: saying what to use instead.
    """
    for name in ("DEEPSPEED", "MEGATRON_LM"):
        if _says_yes(f"ACCELERATE_USE_{name}"):
            raise ConfigError(f"{name} is not supported; use recipes/accelerate/ddp.yaml or fsdp2.yaml")
    if _says_yes(_FSDP) and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("FSDP of version 1 is not supported; write fsdp_version: 2 (recipes/accelerate/fsdp2.yaml)")
    if _says_yes(_FSDP) and _says_yes("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError("fsdp_offload_params is not supported; write fsdp_offload_params: false")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if 0 < gpus <= rank:
        raise ConfigError(
            f"process {rank} has no GPU of its own, since {gpus} can be seen; start {gpus} processes on this machine"
        )


@contextmanager
def plain_data_parallelism() -> Iterator[None]:
    """Inside, accelerate does not see that sharding is asked for: :mod:`seedpo.training.sharding` does it."""
    value = os.environ.pop(_FSDP, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[_FSDP] = value
