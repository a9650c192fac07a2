"""Readers of preference pairs and prompts."""
