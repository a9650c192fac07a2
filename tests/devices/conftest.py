from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from seedpo.training.accelerator import build_accelerator
from seedpo.training.settings import RunConfig
from tests.training.toys import cpu_accelerator


@pytest.fixture(
    params=[
        pytest.param("cuda", marks=pytest.mark.gpu),
        pytest.param("cpu", marks=pytest.mark.slow),  # shows that the tests themselves are right
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """A CUDA device, or the CPU of a machine without one."""
    if (request.param == "cuda") != torch.cuda.is_available():
        pytest.skip("needs a CUDA device" if request.param == "cuda" else "runs on the CUDA device")
    return torch.device(request.param)


def accelerator_on(device: torch.device, config: RunConfig) -> Accelerator:
    if device.type == "cpu":
        return cpu_accelerator(config)
    AcceleratorState._reset_state(reset_partial_state=False)
    return build_accelerator(config.mixed_precision)
