"""What every source file keeps to: documented, small, no pickles, and nothing that is true of one machine only."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("src", "tools") for path in (ROOT / folder).rglob("*.py"))

FOLDERS = ("src", "tests", "docs", "recipes", "benchmarks", "tools", ".ci")
OF_ONE_MACHINE = {
    "a path of one machine": r"(?<![\w.:/])/(?:home|root|Users|opt|tmp|work|mnt|usr/local)/\w",
    "a package index": r"pypi\.org|pythonhosted|download\.pytorch\.org|index-url\s*[= ]|find-links\s*[= ]",
    "an address of a private network": r"\b(?:10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2})\b",
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def repository_files() -> list[Path]:
    """Every file that a commit would hold, without asking git, which an unpacked archive lacks."""
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(files)


def public_definitions(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public classes and functions of a module, methods included, nested functions not."""
    for child in node.body:
        if not isinstance(child, Definition) or child.name.startswith("_"):
            continue
        if any(ast.unparse(decorator) == "overload" for decorator in child.decorator_list):
            continue  # one more signature of what is defined, and documented, below it
        yield f"{prefix}{child.name}", child
        if isinstance(child, ast.ClassDef):
            yield from public_definitions(child, f"{prefix}{child.name}.")


def undocumented(text: str) -> list[str]:
    tree = ast.parse(text)
    names = [name for name, node in public_definitions(tree) if not ast.get_docstring(node)]
    return names if ast.get_docstring(tree) else ["the module itself", *names]


def long_functions(text: str, limit: int) -> list[str]:
    """Functions whose body, docstring and signature left out, has more than ``limit`` lines."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0
            if lines > limit:
                found.append(f"{node.name}: {lines} lines")
    return found


def unsafe_calls(text: str) -> list[str]:
    """Whatever would run code that a file holds: pickles, eval and exec."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) and ast.unparse(node) != "from pickle import UnpicklingError":
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [
                name for name in modules if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
            ]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec", "torch.load", "torch.save"}:
            safe = any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
            found += [] if safe else [ast.unparse(node.func)]
    return found


def of_one_machine(text: str) -> list[str]:
    return [f"{what}: {match[0]}" for what, pattern in OF_ONE_MACHINE.items() for match in re.finditer(pattern, text)]


def offenders(check: Callable[[str], object]) -> dict[str, object]:
    """What a check finds, by file."""
    results = {str(path.relative_to(ROOT)): check(path.read_text(encoding="utf-8")) for path in SOURCES}
    return {name: result for name, result in results.items() if result}


def test_every_public_name_has_a_docstring() -> None:
    assert not offenders(undocumented)


def test_no_file_is_long() -> None:
    assert not offenders(lambda text: max(0, len(text.splitlines()) - 600))


def test_no_function_is_long() -> None:
    assert not offenders(lambda text: long_functions(text, limit=60))


def test_no_pickle_and_no_eval() -> None:
    assert not offenders(unsafe_calls)


def test_no_file_is_true_of_one_machine_only() -> None:
    files = [path for path in repository_files() if path != Path(__file__).resolve()]
    assert ROOT / "pyproject.toml" in files
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {what}" for what in of_one_machine(text)]
    assert not found


def test_the_checks_notice_what_they_are_for() -> None:
    assert undocumented('"""M."""\nclass A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...\n') == ["A.f"]
    assert undocumented("x = 1") == ["the module itself"]
    assert long_functions("def f():\n" + "    x = 1\n" * 4, limit=3) == ["f: 4 lines"]
    assert unsafe_calls("import pickle\nimport torch\nmodel.eval()\ntorch.load(p)\neval('1')") == [
        "pickle",
        "torch.load",
        "eval",
    ]
    assert not unsafe_calls("torch.load(p, weights_only=True)")
    assert unsafe_calls("torch.load(p, weights_only=safe)") == ["torch.load"]
    for text in ("see /home/me/x", "cp a /tmp/b", "--index-url=https://x", "host 192.168.0.17"):
        assert of_one_machine(text), text
    for text in ("out/tmp/x", "https://example.org/home/x", "version 10.2.0", "src/work/a"):
        assert not of_one_machine(text), text
