"""What launchers ask for: the accelerate files as accelerate itself reads them, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

from seedpo.errors import ConfigError
from seedpo.training.accelerator import check_launch, plain_data_parallelism, sharding_is_asked_for

FILES = Path(__file__).parents[2] / "src" / "seedpo" / "recipes" / "accelerate"


def asked_by(name: str, *options: str) -> tuple[Any, dict[str, str]]:
    """What ``accelerate launch --config_file`` makes of a file, and the variables that it sets."""
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", str(FILES / name), *options, "-m", "seedpo", "train"])
    arguments, _, _ = _validate_launch_command(arguments)
    if arguments.use_fsdp or arguments.multi_gpu:
        return arguments, prepare_multi_gpu_env(arguments)
    return arguments, prepare_simple_launcher_cmd_env(arguments)[1]


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, world: int) -> None:
    for name, value in variables.items():
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", str(world))


@pytest.mark.parametrize(
    ("name", "processes", "sharded"),
    [("one-gpu.yaml", 1, False), ("ddp.yaml", 8, False), ("fsdp2.yaml", 8, True)],
)
def test_files_ask_for_what_they_say(monkeypatch: pytest.MonkeyPatch, name: str, processes: int, sharded: bool) -> None:
    arguments, variables = asked_by(name)
    assert arguments.num_processes == processes
    set_variables(monkeypatch, variables, world=processes)
    check_launch(gpus=processes)
    assert sharding_is_asked_for() == sharded
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not sharding_is_asked_for(), "one process has nothing to share"


def test_all_files_are_tested() -> None:
    assert {path.name for path in FILES.iterdir()} == {"one-gpu.yaml", "ddp.yaml", "fsdp2.yaml"}


FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (FSDP | {"FSDP_VERSION": "1"}, "fsdp_version: 2"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params: false"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "recipes/accelerate/ddp.yaml"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "recipes/accelerate/ddp.yaml"),
    ],
)
def test_anything_else_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    set_variables(monkeypatch, variables, world=2)
    with pytest.raises(ConfigError, match=message):
        check_launch(gpus=2)


def test_every_process_needs_a_gpu_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    check_launch(gpus=0)
    check_launch(gpus=3)
    with pytest.raises(ConfigError, match="process 2 has no GPU of its own, since 2 can be seen; start 2 processes"):
        check_launch(gpus=2)


def test_accelerate_does_not_shard_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, FSDP, world=2)
    with plain_data_parallelism():
        assert "ACCELERATE_USE_FSDP" not in os.environ
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
