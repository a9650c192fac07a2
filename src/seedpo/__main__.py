"""``python -m seedpo``. The current folder, which Python puts first for it, is no place of code: see `--code`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from seedpo.cli import main

main()
