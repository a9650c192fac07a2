"""Comparing models: the same prompts and latents for all, images one by one, scores, and a summary with intervals."""
