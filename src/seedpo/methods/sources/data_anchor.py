"""A source that hands out pairs of another set beside its own batches, for the anchor `data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedpo.core.types import ImagePairs
from seedpo.methods.anchors import BatchWithData
from seedpo.methods.settings import MethodConfig
from seedpo.methods.sources.offline import OfflinePairs, build_source
from seedpo.methods.sources.supplies import Supplies
from seedpo.protocols import DataReader, EarlierProcesses, Fingerprint, Source, State


@dataclass(frozen=True, kw_only=True)
class SourceWithData:
    """Two sources in step, each with its own state.

    Attributes:
        source: of the objective.
        data: of the anchor.
    """

    source: Source[Any]
    data: OfflinePairs[ImagePairs]

    def next_batch(self) -> BatchWithData:
        """The next batch of both."""
        return BatchWithData(batch=self.source.next_batch(), data=self.data.next_batch())

    def metrics(self) -> Mapping[str, float]:
        """What both observed; the names of the anchor's figures begin with ``anchor_``."""
        return {**self.source.metrics(), **{f"anchor_{name}": value for name, value in self.data.metrics().items()}}

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """Of what both read."""
        own = self.source.fingerprints() if isinstance(self.source, DataReader) else {}
        return {**own, "anchor.data_set": self.data.fingerprints()["data"]}

    def state(self) -> State:
        """Of both."""
        return {"source": self.source.state(), "anchor": self.data.state()}

    def restore(self, state: State) -> None:
        """Takes back what :meth:`state` gave."""
        self.source.restore(state["source"])
        self.data.restore(state["anchor"])

    def take_over(self, earlier: EarlierProcesses, *, seed: int) -> None:
        """Both go on where those of another number of processes stopped."""
        drawing: Any = self.source
        drawing.take_over(earlier.of("source"), seed=seed)
        self.data.take_over(earlier.of("anchor"), seed=seed)


def with_data(source: Source[Any], config: MethodConfig, supplies: Supplies) -> Source[Any]:
    """A source with the pairs of the anchor `data`; without that anchor, the source itself.

    Args:
        source: of the objective.
        config: of the run.
        supplies: whose pairs are those of the anchor.
    """
    if not config.anchor.data:
        return source
    return SourceWithData(source=source, data=build_source(config, supplies))
