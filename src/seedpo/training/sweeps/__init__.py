"""Grids of runs: from a sweep file to cells, and from cells to run folders."""
