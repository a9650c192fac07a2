"""Prompts, by the name of a set or from a file."""
