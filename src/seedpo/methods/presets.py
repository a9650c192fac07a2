"""The three methods as data: which objective meets which source, and the published settings.

SEE is a value of ``gamma``, not a method of its own. The values are those of the papers for SD1.5; what depends on the
size of the latent space or of the run (learning rate, steps, batch) is the recipe's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedpo.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One published method.

    Attributes:
        objective: ``noise`` or ``transition``: which log-probability is compared.
        source: ``offline``, ``trajectories`` or ``steps``: where the pairs come from.
        paper: where it was published.
        defaults: configuration keys that differ from the general defaults.
    """

    objective: str
    source: str
    paper: str
    defaults: Mapping[str, Any]


DIFFUSION_DPO = Preset(
    objective="noise",
    source="offline",
    paper="arXiv 2311.12908",
    defaults={"beta": 2000.0, "learning_rate": 1e-5},
)

D3PO = Preset(
    objective="transition",
    source="trajectories",
    paper="arXiv 2311.13231",
    defaults={"beta": 0.1, "clip_range": 0.1, "learning_rate": 3e-5},
)

SPO = Preset(
    objective="transition",
    source="steps",
    paper="arXiv 2406.04314",
    defaults={"beta": 10.0, "clip_range": 0.1, "learning_rate": 6e-5},
)


@dataclass(frozen=True, kw_only=True)
class MethodEntry(Entry):
    """One method's row.

    Attributes:
        title: its name in reports and cards.
    """

    title: str


METHODS = Registry(
    "method",
    (
        MethodEntry(
            name="diffusion-dpo",
            title="Diffusion-DPO",
            target="seedpo.methods.presets:DIFFUSION_DPO",
            summary="noise-prediction DPO on a fixed set of image pairs (arXiv 2311.12908)",
        ),
        MethodEntry(
            name="d3po",
            title="D3PO",
            target="seedpo.methods.presets:D3PO",
            summary="DPO on whole trajectories that share x_T, ranked by their final images (arXiv 2311.13231)",
        ),
        MethodEntry(
            name="spo",
            title="SPO",
            target="seedpo.methods.presets:SPO",
            summary="DPO on single steps from a shared x_t, ranked by a step-aware scorer (arXiv 2406.04314)",
        ),
    ),
)


def method_title(name: str) -> str:
    """The title of a method; of one that is not registered, its name."""
    return METHODS[name].title if name in METHODS else name
