"""The command line. Heavy imports wait until a command needs them, so that ``--help`` answers at once."""

from seedpo.cli.stopping import ended_in_one_line

with ended_in_one_line():  # importing the commands takes a while, too
    from seedpo.cli.main import app, main

__all__ = ["app", "main"]
