"""The package itself: what an import costs, which names are public, and which packages import which."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import mata_interp

PACKAGE = Path(mata_interp.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# A package imports only from packages that stand before it, and none imports the facade `mata_interp`.
PACKAGES = (
    "version",
    "errors",
    "defaults",
    "load_options",
    "ranges",
    "seeding",
    "markup",
    "progress",
    "compat",
    "precision",
    "attention",
    "benchmarks",
    "statistics",
    "interventions",
    "lalm",
    "execution",
    "tracing",
    "attaching",
    "sweeps",
    "fusion",
    "checking",
    "experiments",
    "sharing",
    "harnesses",
    "organism",
    "plot",
    "reporting",
    "cli",
)
FACADE = ""  # `import mata_interp`, or a name imported from it
HEAVY = ("torch", "transformers", "nnsight", "transformer_lens")


def in_a_fresh_process(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heavy_modules_after(code: str) -> list[str]:
    report = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    return in_a_fresh_process(report).split()


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def packages_imported(path: Path) -> set[str]:
    """The packages that a file imports anything from, at the top or inside a function; "" is the facade."""
    package = ["mata_interp", *path.relative_to(PACKAGE).parent.parts]
    result = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "mata_interp":
                result.add(rest[0] if rest and rest[0] in PACKAGES else FACADE)
    return result


def test_import_is_light():
    assert heavy_modules_after("import mata_interp") == []


@pytest.mark.parametrize("name", ["Item", "Items", "load_benchmark", "paired_effect", "holm", "errors"])
def test_what_knows_no_model_stays_light(name):
    assert heavy_modules_after(f"from mata_interp import {name}") == []


def test_a_page_of_a_run_needs_no_model():
    loaded = heavy_modules_after("import mata_interp.reporting.writing, mata_interp.reporting.paper")
    assert not {"transformers", "nnsight"} & set(loaded)


def test_heavy_modules_would_be_noticed():
    assert heavy_modules_after("import torch") == ["torch"]


@pytest.mark.parametrize("command", [[], ["study"], ["listen"], ["organism"]], ids=" ".join)
def test_help_is_light(command):
    sys_argv = ["mata-interp", *command, "--help"]
    help_and_modules = in_a_fresh_process(
        f"import sys\nsys.argv = {sys_argv}\nfrom mata_interp.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    assert "Usage: mata-interp" in help_and_modules
    assert help_and_modules.splitlines()[-1].strip() == "heavy:"


def test_help_answers_in_under_a_second():
    """The installed command, in seconds of processor time, which a busy machine does not lengthen much."""
    command = [str(Path(sys.executable).with_name("mata-interp")), "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("name", mata_interp.__all__)
def test_public_names_resolve(name):
    assert getattr(mata_interp, name) is not None
    assert name in dir(mata_interp)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="attribute Matta"):
        mata_interp.Matta  # noqa: B018


def test_every_package_has_its_place():
    present = {package_of(path) for path in MODULES} - {"__init__"}
    assert present <= set(PACKAGES)
    assert [name for name in PACKAGES if name in present] == list(PACKAGES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_import_only_what_stands_before_them(path):
    package = package_of(path)
    if package == "__init__":
        return
    allowed = set(PACKAGES[: PACKAGES.index(package) + 1])
    if package == "cli":  # commands are written as a user would write them
        allowed.add(FACADE)
    assert packages_imported(path) <= allowed


def test_the_import_check_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "lalm" / "model.py"
    file.parent.mkdir()
    file.write_text(
        "import mata_interp.cli\n"
        "import mata_interp as mi\n"
        "from mata_interp import tracing\n"
        "from ..reporting.page import render\n"
        "from .. import organism\n"
        "from .experiments import nothing_of_the_kind\n"
        "def later():\n    from mata_interp.attention import AttentionCall\n"
    )
    result = {"cli", "tracing", "reporting", "organism", "lalm", "attention", FACADE}
    assert packages_imported(file) == result
