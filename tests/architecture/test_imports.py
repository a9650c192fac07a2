"""Who imports whom: the layers of pyproject.toml, the purity of the core, and a command line that answers at once."""

from __future__ import annotations

import ast
import os
import resource
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "seedpo"

RUN_LINTER = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"

ASK_FOR_HELP = """
import sys
from seedpo.cli import main
sys.argv = ["seedpo", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"accelerate", "diffusers", "matplotlib", "numpy", "peft", "pyarrow", "scipy", "torch", "transformers"}
print("HEAVY", *sorted(heavy & set(sys.modules)))
"""


def run_python(code: str, *, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def imported_modules(path: Path) -> set[str]:
    """Absolute names of every module that a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_import_contracts_hold() -> None:
    result = run_python(RUN_LINTER, root=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


FORBIDDEN = {
    "core/types.py": ("import seedpo.errors", "import numpy"),
    "methods/__init__.py": ("import seedpo.scenes",),
    "data/__init__.py": ("import seedpo.training.run",),
    "reports/__init__.py": ("import torch",),
    "training/__init__.py": ("import diffusers",),
    "unplaced.py": ("import seedpo.cli",),
}
"""Imports that break a contract, by the file that makes them."""


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("seedpo", cache_dir=None)
    # Raises CycleError, which names the circle.
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


def test_import_contracts_notice_forbidden_imports(tmp_path: Path) -> None:
    """All at once, since each look at the whole package takes seconds."""
    shutil.copytree(
        PACKAGE, tmp_path / "src" / "seedpo", ignore=shutil.ignore_patterns("assets", "templates", "__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, lines in FORBIDDEN.items():
        with (tmp_path / "src" / "seedpo" / file).open("a", encoding="utf-8") as stream:
            stream.write("".join(f"\n{line}\n" for line in lines))
    output = run_python(RUN_LINTER, root=tmp_path).stdout
    for file, lines in FORBIDDEN.items():
        module = f"seedpo.{file.removesuffix('.py').replace('/__init__', '').replace('/', '.')}"
        for line in lines:
            target = line.removeprefix("import ")
            assert f"{module} -> {target}" in output or f"- {module}\n" in output, line


def test_core_imports_torch_and_the_standard_library_only() -> None:
    foreign = {
        f"{path.name}: {name}"
        for path in (PACKAGE / "core").glob("*.py")
        for name in imported_modules(path)
        if name.split(".")[0] not in {"torch", *sys.stdlib_module_names}
        and name != "seedpo.core"
        and not name.startswith("seedpo.core.")
    }
    assert not foreign


def test_help_imports_nothing_heavy() -> None:
    result = run_python(ASK_FOR_HELP, root=ROOT)
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout
    assert result.stdout.splitlines()[-1] == "HEAVY"


def test_help_answers_in_under_a_second() -> None:
    """Processor time of the best of three: what the clock says besides is other programs' doing."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run_python(ASK_FOR_HELP, root=ROOT).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0
