"""Every model that has a name. Nothing heavy is imported before one is used."""

from __future__ import annotations

from seedpo.registry import Entry, Registry

MODELS = Registry(
    "model",
    (
        Entry(
            name="scenes",
            target="seedpo.scenes.shipped:scenes_folder",
            summary="the embedded text-to-image pipeline: 32 x 32 px drawings, ships with the package",
        ),
    ),
)
