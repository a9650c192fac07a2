"""Diffusion pipelines behind the narrow denoiser protocol."""
