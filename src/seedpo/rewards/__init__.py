"""Scorers of images: one small adapter each."""
