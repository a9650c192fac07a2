"""Runs attacks against readers, each in a process of its own with limits, and prints what came of them as JSON."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from seedpo.data.images.rgb import decoded, size_of_file
from seedpo.errors import LONGEST, SeedpoError
from tests.hostile.attacks import FILES, JSON, REFUSED_IMAGES, TAKEN_IMAGES, YAML
from tests.hostile.readers import READERS, Reader

SECONDS, MEMORY = 15.0, 1 << 30
"""Limits of each attempt; most take some hundredths of a second. Memory is what it may take beyond what is loaded."""


def attempts(group: str) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """The attempts of a group, each a function of an empty folder."""
    if group == "images":
        for name, content in {**REFUSED_IMAGES, **TAKEN_IMAGES}.items():
            yield f"decoded: {name}", lambda folder, content=content: decoded(content)
            yield f"measured: {name}", lambda folder, content=content: size_of_file(content)
        return
    for name, reader in READERS.items():
        if group == "files":
            for attack, make in FILES.items():
                yield f"{name}: {attack}", lambda folder, make=make, reader=reader: attempt(folder, reader, make)
        elif reader.kind == group:
            for attack, text in {"yaml": YAML, "json": JSON}[group].items():
                content = text.encode("utf-8")
                yield (
                    f"{name}: {attack}",
                    lambda folder, content=content, reader=reader: attempt(
                        folder, reader, lambda path: path.write_bytes(content)
                    ),
                )


def attempt(folder: Path, reader: Reader, make: Callable[[Path], object]) -> object:
    """Reads an attacked file."""
    reader.prepare(folder)
    file = folder / reader.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    make(file)
    return reader.read(folder)


def outcome(call: Callable[[], object]) -> str:
    """``taken``, ``refused``, or what is wrong with how it ended."""
    try:
        call()
    except SeedpoError as error:
        line = str(error)
        return "refused" if 0 < len(line) <= 2 * LONGEST and line.isprintable() else f"no line: {line!r}"
    except BaseException as error:
        return f"raised {type(error).__name__}: {error}"[:300]
    return "taken"


def limited(call: Callable[[], object]) -> str:
    """The outcome of a call in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        os.write(writing, outcome(call).encode(errors="replace"))
        os._exit(0)
    os.close(writing)
    if select.select([reading], [], [], SECONDS)[0]:
        text = os.read(reading, 10_000).decode() or "died"
    else:
        text = f"still busy after {SECONDS:.0f} s"
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    os.waitpid(child, 0)
    return text


def main(group: str) -> None:
    """Runs a group."""
    gc.freeze()
    outcomes = {}
    for name, call in attempts(group):
        folder = Path(tempfile.mkdtemp())
        outcomes[name] = limited(lambda call=call, folder=folder: call(folder))
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(outcomes) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
