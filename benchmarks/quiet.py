"""The libraries' own progress bars and notices."""

from __future__ import annotations

import diffusers
import transformers


def quieten_libraries() -> None:
    """Keeps them off the screen."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
