"""Frontiers: is a run learning or hacking, where should it stop, and which of several gives more at equal proxy?

:mod:`.reading` turns run folders, evaluation folders and score tables into courses (:mod:`.courses`), :mod:`.results`
judges and compares them, :mod:`.writing` makes the page.
"""
