"""Everything that is imported is declared in pyproject.toml, and everything declared is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = {"mata_interp", "tests"}
# Loaded by another package when it is used, never imported by name.
USED_BY_OTHERS = {"accelerate", "ipykernel", "ruff", "pyright", "jupytext", "nbclient", "pytest"}
OPTIONAL = {"peft", "ray", "mistral-common", "timm", "torchaudio", "torchvision"}  # imported where installed


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file below a folder with the top-level name of each module that it imports."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                yield path, name.split(".")[0]


def third_party(folder: str) -> set[str]:
    """The distributions that the files below a folder import from."""
    first_party = OWN | {path.stem for path in (ROOT / "analyses").rglob("*.py")} | {"support"}
    names = {name for _, name in imported(ROOT / folder)} - first_party - set(sys.stdlib_module_names)
    homes = packages_distributions()
    return {canonicalize_name(homes[name][0] if name in homes else name) for name in names}


def environments() -> set[str]:
    """What the environments of `make acceptance-harness` and `acceptance-families` install."""
    files = (ROOT / ".ci" / "environments").glob("*.txt")
    lines = [line.split("#")[0].strip() for path in files for line in path.read_text().splitlines()]
    return declared(line for line in lines if line)


def test_the_package_imports_only_what_is_declared():
    assert third_party("mata_interp") <= declared(PROJECT["dependencies"]) | OPTIONAL


@pytest.mark.parametrize("folder", ["tests", "analyses", "notebooks"])
def test_other_folders_import_only_what_is_declared(folder):
    extras = declared(EXTRAS["dev"]) | declared(EXTRAS["ray"]) | environments()
    assert third_party(folder) <= declared(PROJECT["dependencies"]) | extras | OPTIONAL | {"ipython"}


def test_what_is_declared_is_imported():
    used = third_party("mata_interp")
    assert declared(PROJECT["dependencies"]) - used - USED_BY_OTHERS == set()


def test_every_default_dependency_has_one_lower_bound():
    for text in PROJECT["dependencies"]:
        operators = [spec.operator for spec in Requirement(text).specifier]
        assert operators.count(">=") == 1, text


def test_the_lock_holds_every_declared_dependency():
    pins = {
        canonicalize_name(Requirement(line).name)
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    requirements = PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["ray"]
    assert declared(requirements) <= pins


def test_an_installed_package_has_every_file():
    """What is not Python is installed only if a pattern of package-data names it."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mata_interp"]
    package = ROOT / "mata_interp"
    named = {path for pattern in patterns for path in package.glob(pattern)}
    listed = subprocess.run(
        ["git", "ls-files", "mata_interp"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.splitlines()]
    assert len(files) > 300
    assert [path for path in files if path.suffix != ".py" and path.exists() and path not in named] == []
