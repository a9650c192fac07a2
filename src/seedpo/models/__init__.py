"""Diffusion pipelines behind the narrow denoiser protocol."""

import logging

# peft imports bitsandbytes where it is installed; that then misses faster kernels, which nothing here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
