"""The images of a study in memory, so that they are sent while other things wait."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from seedpo.data.images.rgb import size_of_file
from seedpo.errors import DataError
from seedpo.study.web.threads import Threads

MEMORY = 64 * 2**20
"""Bytes of images in memory at most."""

RATIOS = 100_000
"""Ratios of images in memory at most."""


class Gallery:
    """Image files. They never change: the name of each is a digest of its content.

    Args:
        threads: that read files.
        memory: bytes to remember at most; the images that were asked for last.
    """

    def __init__(self, threads: Threads, *, memory: int = MEMORY) -> None:
        self._threads = threads
        self._memory = memory
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._ratios: OrderedDict[str, float] = OrderedDict()
        self._size = 0

    async def file(self, path: Path) -> bytes:
        """The content of an image file.

        Raises:
            OSError: it cannot be read.
        """
        known = self._files.get(path.name)
        if known is not None:
            self._files.move_to_end(path.name)
            return known
        content = await self._threads.run(path.read_bytes)
        self._remember(path.name, content)
        return content

    async def ratio(self, path: Path) -> float:
        """Width / height of an image; 1 if the file cannot be read."""
        if path.name not in self._ratios:
            try:
                width, height = size_of_file(await self.file(path))
            except (OSError, DataError):
                return 1.0
            self._ratios[path.name] = round(width / height, 4)
            if len(self._ratios) > RATIOS:
                self._ratios.popitem(last=False)
        return self._ratios[path.name]

    def _remember(self, name: str, content: bytes) -> None:
        if name in self._files or len(content) > self._memory:
            return
        self._files[name] = content
        self._size += len(content)
        while self._size > self._memory:
            self._size -= len(self._files.popitem(last=False)[1])
