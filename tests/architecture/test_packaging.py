"""What is declared agrees with what is there: dependencies, pins, version, make targets and pointers to tests."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.architecture.pins import pins

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(text) for extra in ("dev", "data") for text in PROJECT["optional-dependencies"][extra]]

DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}
"""Modules whose distribution has another name."""

MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def imported_distributions() -> set[str]:
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    third_party = found - set(sys.stdlib_module_names) - {"seedpo"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in third_party}


def test_declared_dependencies_are_those_that_are_imported() -> None:
    extras = PROJECT["optional-dependencies"]
    optional = {
        canonicalize_name(Requirement(text).name) for extra in extras if extra != "dev" for text in extras[extra]
    }
    assert {canonicalize_name(requirement.name) for requirement in RUNTIME} == imported_distributions() - optional


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    exact = pins()
    for requirement in (*RUNTIME, *DEVELOPMENT):
        pin = exact[canonicalize_name(requirement.name)]
        assert not Version(pin).local, requirement
        assert requirement.specifier.contains(pin), requirement


def test_the_wheel_takes_every_file_of_the_package() -> None:
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    packaged = {
        path
        for package, patterns in globs.items()
        for pattern in patterns
        for path in (ROOT / "src" / Path(*package.split("."))).glob(pattern.replace("**", "**/*"))
    }
    files = {
        path for path in (ROOT / "src" / "seedpo").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in files if path.suffix != ".py"} <= packaged
    assert all((path.parent / "__init__.py").exists() for path in files if path.suffix == ".py")


def test_the_image_copies_files_and_installs_extras_that_exist() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied
    assert all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)
    (extras,) = (line.partition("EXTRAS=")[2] for line in lines if line.startswith("ARG EXTRAS="))
    requirements = [
        Requirement(text) for extra in extras.split(",") for text in PROJECT["optional-dependencies"][extra]
    ]
    assert {canonicalize_name(requirement.name) for requirement in requirements} <= {
        canonicalize_name(name) for name in pins()
    }


def test_what_is_shipped_is_small_and_runs_no_code() -> None:
    shipped = [path for path in (ROOT / "src" / "seedpo" / "scenes" / "assets").rglob("*") if path.is_file()]
    assert {path.suffix for path in shipped} <= {".safetensors", ".json", ".md", ".parquet", ".txt"}
    assert 0 < sum(path.stat().st_size for path in shipped) <= 20e6


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def anchors(path: Path) -> set[str]:
    """What links may name in a page: its headings in lower case, without punctuation, blanks as hyphens."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_documents_name_what_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in MARKDOWN:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z]+)`", text)) <= targets, path.name
        for file, test in re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", text):
            content = (ROOT / file).read_text(encoding="utf-8")
            for name in filter(None, test.split("::")):
                assert re.search(rf"^ *(?:def|class) {name}\b", content, re.MULTILINE), f"{file} has no {name}"
        for link, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)(?:#([^)]+))?\)", text):
            target = path.parent / link if link else path
            assert target.exists(), f"{path.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{path.name} links to {link}#{anchor}"


def test_documents_wrap_at_a_hundred_columns() -> None:
    """Tables, code, pictures and what has no blank to break at stay as they are."""
    long = []
    for path in MARKDOWN:
        code = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            free = code or line.startswith(("    ", "|", "![")) or " " not in line.strip()[:100]
            if len(line) > 100 and not free:
                long.append(f"{path.name}:{number}")
    assert not long
