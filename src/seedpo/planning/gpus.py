"""GPUs that a run can be planned for: dense peaks from the data sheets, and memory as the driver shows it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from seedpo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One model of GPU; peaks are dense (no sparsity), in TFLOP/s, from the data sheets.

    Attributes:
        name: as users write it.
        memory: GiB, as the driver shows it.
        half: matrix peak in float16 with float32 accumulation, and in bfloat16 where there is one.
        tf32: peak of float32 convolutions, which cuDNN runs in TF32 where the hardware has it.
        float32: peak of float32 matrix products, which torch runs without TF32 by default.
        bfloat16: whether matrix units take bfloat16.
    """

    name: str
    memory: float
    half: float
    tf32: float
    float32: float
    bfloat16: bool = True


GPUS: tuple[Gpu, ...] = (
    Gpu(name="A10", memory=22.5, half=125.0, tf32=62.5, float32=31.2),
    Gpu(name="A10G", memory=22.5, half=70.0, tf32=35.0, float32=35.0),
    Gpu(name="A40", memory=45.0, half=149.7, tf32=74.8, float32=37.4),
    Gpu(name="A100-40", memory=40.0, half=312.0, tf32=156.0, float32=19.5),
    Gpu(name="A100-80", memory=80.0, half=312.0, tf32=156.0, float32=19.5),
    Gpu(name="H100", memory=79.6, half=989.4, tf32=494.7, float32=66.9),
    Gpu(name="H100-PCIe", memory=79.6, half=756.0, tf32=378.0, float32=51.0),
    Gpu(name="H200", memory=140.4, half=989.4, tf32=494.7, float32=66.9),
    Gpu(name="L4", memory=22.5, half=121.0, tf32=60.0, float32=30.3),
    Gpu(name="L40", memory=45.0, half=181.0, tf32=90.5, float32=90.5),
    Gpu(name="L40S", memory=45.0, half=362.0, tf32=183.0, float32=91.6),
    Gpu(name="RTX-3060", memory=12.0, half=25.5, tf32=12.7, float32=12.7),
    Gpu(name="RTX-3090", memory=24.0, half=71.0, tf32=35.6, float32=35.6),
    Gpu(name="RTX-4060", memory=8.0, half=30.2, tf32=15.1, float32=15.1),
    Gpu(name="RTX-4070", memory=12.0, half=58.3, tf32=29.1, float32=29.1),
    Gpu(name="RTX-4080", memory=16.0, half=97.5, tf32=48.7, float32=48.7),
    Gpu(name="RTX-4090", memory=24.0, half=165.2, tf32=82.6, float32=82.6),
    Gpu(name="RTX-5090", memory=31.8, half=209.5, tf32=104.8, float32=104.8),
    Gpu(name="RTX-A6000", memory=48.0, half=154.8, tf32=77.4, float32=38.7),
    Gpu(name="T4", memory=15.0, half=65.0, tf32=8.1, float32=8.1, bfloat16=False),
    Gpu(name="V100-16", memory=15.8, half=125.0, tf32=15.7, float32=15.7, bfloat16=False),
    Gpu(name="V100-32", memory=31.7, half=125.0, tf32=15.7, float32=15.7, bfloat16=False),
)
"""By name; H100 and H200 are the SXM modules, V100 the SXM2 module."""


def _plain(name: str) -> str:
    return (
        name.lower().replace("-", "").replace("_", "").replace(" ", "").removeprefix("nvidia").removeprefix("geforce")
    )


def find_gpu(name: str) -> Gpu:
    """The GPU of that name; case, hyphens and blanks do not matter, nor do ``NVIDIA`` and ``RTX``.

    Raises:
        ConfigError: if the GPU is unknown; the message lists the known ones.
    """
    known = {_plain(gpu.name): gpu for gpu in GPUS}
    plain = _plain(name).removesuffix("gb")
    for candidate in (plain, f"rtx{plain}", plain.replace("sxm", "")):
        if candidate in known:
            return known[candidate]
    near = difflib.get_close_matches(plain, known, n=1)
    hint = f"did you mean {known[near[0]].name}? " if near else ""
    raise ConfigError(f"unknown GPU {name!r}; {hint}there are: {', '.join(gpu.name for gpu in GPUS)}")
