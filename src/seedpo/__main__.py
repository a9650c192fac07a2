"""``python -m seedpo``. The current folder, which Python puts first for it, is no place of code: see `--code`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:  # noqa: PTH109
    del sys.path[0]

from seedpo.cli import main

main()
