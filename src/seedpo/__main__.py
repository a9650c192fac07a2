"""``python -m seedpo``."""

from seedpo.cli import main

main()
