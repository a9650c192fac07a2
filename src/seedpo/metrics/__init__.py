"""Metrics of images: a row of facts and a function each, and the features they look at."""
