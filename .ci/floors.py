"""Print the lower bound of every default dependency as a pin, and what the smoke tests need beside them.

Used by `make test-floors`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

TEST_TOOLS = ("pytest", "hypothesis")  # of the `dev` extra; the newest are fine


def floor(requirement: Requirement) -> str:
    """The lowest version that a requirement allows, as an exact pin."""
    bounds = [spec.version for spec in requirement.specifier if spec.operator == ">="]
    if len(bounds) != 1:
        raise SystemExit(f"pyproject.toml: {requirement} has no single lower bound.")
    return f"{requirement.name}=={bounds[0]}"


def main() -> None:
    pyproject = tomllib.loads(Path("pyproject.toml").read_text())
    project = pyproject["project"]
    print("\n".join(floor(Requirement(text)) for text in project["dependencies"]))
    print("\n".join(pyproject["build-system"]["requires"]))
    dev = [Requirement(text) for text in project["optional-dependencies"]["dev"]]
    print("\n".join(str(requirement) for requirement in dev if requirement.name in TEST_TOOLS))


if __name__ == "__main__":
    main()
