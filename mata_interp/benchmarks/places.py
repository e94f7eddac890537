"""Where a benchmark lies: its data file and the folder of its audio, from a name, a file or a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from platformdirs import user_data_path

from ..errors import BenchmarkError
from .reading import SUFFIXES
from .records import find_column
from .values import quote

__all__ = ["AUDIO_SUFFIXES", "DOWNLOADS", "data_file", "data_folder", "downloaded", "place_audio"]

VARIABLE = "MATA_DATA"
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")
_LOOKED_AT = 20  # records whose audio files are looked for
_DEPTH = 3  # of the folders that they are looked for in


@dataclass(frozen=True)
class Download:
    """A benchmark that does not ship.

    Attributes:
        data: its data file and where that is.
        audio: where its audio is.
        pattern: names of its data files.
    """

    data: str
    audio: str
    pattern: str


DOWNLOADS = {
    "mmau": Download(
        data="mmau-test-mini.json from github.com/Sakshi113/MMAU",
        audio='the archive "test-mini audios" that the README there links to',
        pattern=r"mmau.*\.jsonl?",
    ),
    "mmar": Download(
        data="MMAR-meta.json from github.com/ddlBoJack/MMAR",
        audio="the audio from huggingface.co/datasets/BoJack/MMAR",
        pattern=r"mmar.*\.jsonl?",
    ),
}


def data_folder() -> Path:
    """The folder in which benchmarks are looked for by name: ``$MATA_DATA``, or the user's data folder."""
    place = os.environ.get(VARIABLE)
    return Path(place).expanduser() if place else user_data_path("mata-interp", appauthor=False)


def downloaded(name: str) -> Path:
    """The folder of a downloaded benchmark.

    Raises:
        BenchmarkError: it is not there; the message says what to download, and where to put it.
    """
    folder = data_folder()
    for place in (folder / name, folder / name.upper(), folder):
        if place.is_dir() and _known_files(place, name):
            return place
    download = DOWNLOADS[name]
    raise BenchmarkError(
        f"{name} does not ship. Download {download.data} and {download.audio}, and put both into "
        f"{str(folder / name)!r} ({VARIABLE} sets another folder than {str(folder)!r}); or put them anywhere "
        "and give that folder in place of the name."
    )


def data_file(folder: Path, subset: str | None) -> Path | None:
    """The data file in a folder: one of MMAU or MMAR by its name, else the only table or JSON file.

    Args:
        folder: the folder.
        subset: part of the benchmark, which decides between files such as ``mmau-test.json`` and
            ``mmau-test-mini.json``; without it, the smaller test set is meant.

    Returns:
        The file; None if there is none, or if the only one is not clearly meant.

    Raises:
        BenchmarkError: there are several files of MMAU or MMAR, and ``subset`` does not decide between them.
    """
    files = [file for name in DOWNLOADS for file in _known_files(folder, name)]
    if len(files) > 1:
        part = subset or "mini"
        exact = [file for file in files if re.search(rf"[-_]{re.escape(part)}\.", file.name, re.IGNORECASE)]
        if len(exact) != 1:
            names = quote(sorted(file.name for file in files))
            raise BenchmarkError(f"{str(folder)!r} holds {names}: give one of these files.")
        files = exact
    if files:
        return files[0]
    tables = [file for file in sorted(folder.iterdir()) if _is_table(file)]
    return tables[0] if len(tables) == 1 and subset is None and _holds_audio(folder) else None


def _known_files(folder: Path, name: str) -> list[Path]:
    pattern = re.compile(DOWNLOADS[name].pattern, re.IGNORECASE)
    return sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name) and file.is_file())


def _is_table(file: Path) -> bool:
    name = file.name.lower().removesuffix(".gz")
    return file.is_file() and name.endswith(tuple(set(SUFFIXES) - {".parquet"}))


def _holds_audio(folder: Path) -> bool:
    places = (folder, *_folders_in(folder))
    return any(file.suffix.lower() in AUDIO_SUFFIXES for place in places for file in place.iterdir())


def _folders_in(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Folders in a folder, those above first; hidden ones and links are left out."""
    inside = [place for place in sorted(folder.iterdir()) if place.is_dir() and not place.is_symlink()]
    visible = [place for place in inside if not place.name.startswith(".")]
    yield from visible
    if depth > 1:
        for place in visible:
            yield from _folders_in(place, depth - 1)


# ------------------------------------------------------------------------------------------------- the audio
def place_audio(records: Sequence[Any], folder: Path, column: str | None = None) -> tuple[Path, list[Any]]:
    """The folder that the audio paths of records start from, and the records with paths from there.

    Where the files are not at their paths in ``folder``, they are looked for in the folders inside, also
    without the first folders of their paths: ``test-mini-audios/a.wav`` may be ``audio/a.wav`` or ``a.wav``.
    The place with most of the first 20 records' files is taken; without any, the paths stay.

    Args:
        records: records of the data file.
        folder: folder of the benchmark.
        column: column of the audio paths; found by its name if None.
    """
    paths = [_audio_path(record, column) for record in records]
    sample = [path for path in paths if path is not None][:_LOOKED_AT]
    longest = max((len(path.parts) for path in sample), default=1)
    best, most = (folder, 0), 0
    for dropped in range(longest):
        for root in (folder, *_folders_in(folder)):
            count = sum(_shorter(path, dropped, root) for path in sample)
            if count > most:
                best, most = (root, dropped), count
        if most == len(sample):
            break
    root, dropped = best
    if not dropped:
        return root, list(records)
    return root, [_moved(record, path, dropped, column) for record, path in zip(records, paths, strict=True)]


def _audio_column(record: Any, column: str | None) -> str | None:
    if not isinstance(record, Mapping):
        return None
    return column if column in record else find_column(record, "audio")


def _audio_path(record: Any, column: str | None) -> PurePosixPath | None:
    name = _audio_column(record, column)
    value = record[name] if name is not None else None
    path = PurePosixPath(value.replace("\\", "/")) if isinstance(value, str) and value else None
    return None if path is None or path.is_absolute() or ".." in path.parts else path


def _shorter(path: PurePosixPath, dropped: int, root: Path) -> bool:
    rest = path.parts[dropped:]
    return bool(rest) and root.joinpath(*rest).is_file()


def _moved(record: Any, path: PurePosixPath | None, dropped: int, column: str | None) -> Any:
    """The record without the first folders of its audio path."""
    name = _audio_column(record, column)
    if path is None or name is None or len(path.parts) <= dropped:
        return record
    return {**record, name: "/".join(path.parts[dropped:])}
