"""Print requirements.lock: the exact versions in this environment of everything the project needs.

Walks the requirements of the package with its `dev` and `ray` extras, and of the build, through what is
installed, so that nothing gets in that the project does not ask for. Run by `make lock`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HEADER = """\
# What was tested together: the default dependencies, the `dev` and the `ray` extra, every version exact.
# Written by `make lock`. The drivers that a GPU build of torch brings are left to torch's own pins.
"""
DRIVERS = ("nvidia-", "cuda-", "triton")


def needed(requirement: Requirement) -> Iterator[Requirement]:
    """The requirements of one installed requirement, in this environment."""
    for text in requires(requirement.name) or []:
        child = Requirement(text)
        extras = requirement.extras or {""}
        if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
            yield child


def main() -> None:
    pyproject = tomllib.loads(Path("pyproject.toml").read_text())
    project = pyproject["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *project["optional-dependencies"]["ray"],
        *pyproject["build-system"]["requires"],
    ]
    queue, seen, pins = [Requirement(text) for text in wanted], set(), {}
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(DRIVERS) or (key := (name, frozenset(requirement.extras))) in seen:
            continue
        seen.add(key)
        pins[name] = Version(version(name)).public  # without a label such as +cpu, which only one index knows
        queue += needed(requirement)
    print(HEADER + "\n".join(f"{name}=={pins[name]}" for name in sorted(pins)))


if __name__ == "__main__":
    main()
