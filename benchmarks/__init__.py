"""Measured comparisons with the structure of the reference implementations, and throughput on a GPU."""
