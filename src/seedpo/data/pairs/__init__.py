"""Labelled pairs: what rows become, which of them are trained on, and in which order."""
