"""How this process was launched: what accelerate, torchrun and ``seedpo --processes`` say in variables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from seedpo.errors import ConfigError
from seedpo.processes import is_one_of_several

logger = logging.getLogger(__name__)

_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
_DEEPSPEED_KEYS = "ACCELERATE_DEEPSPEED_"


def _says_yes(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes")


def sharding_is_asked_for() -> bool:
    """Whether an accelerate file or ``--shard`` asks for shards and there is more than one process to shard over."""
    return (_says_yes(_FSDP) or _says_yes(_DEEPSPEED)) and is_one_of_several()


def check_launch(*, gpus: int) -> None:
    """Refuses what the training loop does not handle, before anything is loaded.

    Args:
        gpus: CUDA devices that this process can see; 0 on the CPU.

    Raises:
        ConfigError: saying what to use instead.
    """
    if _says_yes(_DEEPSPEED):
        _check_deepspeed()
    if _says_yes("ACCELERATE_USE_MEGATRON_LM"):
        raise ConfigError("Megatron-LM is not supported; use recipes/accelerate/ddp.yaml or fsdp2.yaml")
    if _says_yes(_FSDP) and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("FSDP of version 1 is not supported; write fsdp_version: 2 (recipes/accelerate/fsdp2.yaml)")
    if _says_yes(_FSDP) and _says_yes("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError("fsdp_offload_params is not supported; write fsdp_offload_params: false")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if 0 < gpus <= rank:
        raise ConfigError(
            f"process {rank} has no GPU of its own, since {gpus} can be seen; start {gpus} processes on this machine"
        )


def _check_deepspeed() -> None:
    """Stage 2 is what :mod:`seedpo.training.sharding` does; nothing else of DeepSpeed is replaced."""
    stage = os.environ.get(_DEEPSPEED_KEYS + "ZERO_STAGE", "2")
    if stage != "2":
        raise ConfigError(
            f"DeepSpeed with zero_stage: {stage} is not supported; write zero_stage: 2 "
            "(recipes/accelerate/deepspeed-2.yaml)"
        )
    for what in ("optimizer", "param"):
        if os.environ.get(f"{_DEEPSPEED_KEYS}OFFLOAD_{what.upper()}_DEVICE", "none") != "none":
            raise ConfigError(f"offload_{what}_device is not supported; write offload_{what}_device: none")
    if os.environ.get(_DEEPSPEED_KEYS + "CONFIG_FILE", "none") != "none":
        raise ConfigError(
            "deepspeed_config_file is not read; leave it out (recipes/accelerate/deepspeed-2.yaml), "
            "since optimiser and batches are keys of the run"
        )
    logger.info("DeepSpeed's stage 2 is asked for: seedpo shards gradients and optimiser by itself (FSDP2) instead")


@contextmanager
def plain_data_parallelism() -> Iterator[None]:
    """Inside, accelerate does not see that sharding is asked for: :mod:`seedpo.training.sharding` does it."""
    asked = {name: value for name in (_FSDP, _DEEPSPEED) if (value := os.environ.pop(name, None)) is not None}
    try:
        yield
    finally:
        os.environ.update(asked)
