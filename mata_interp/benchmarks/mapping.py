"""Any benchmark through one small file that says which of its columns is which field of an item.

A mapping file is JSON::

    {
     "title": "what it is", "source": "where it comes from", "verified": false, "note": "what is not sure",
     "fields": {"audio": "path", "choices": ["choice_a", "choice_b"], "answer": {"option": "answer_gt"}},
     "where": [{"column": "task", "is": "grounding", "fields": {"audio": "{path|stem}.flac"}}],
     "conditions": {"neutral": {}, "conflict": {"caption": "adversarial"}}
    }

Only ``fields`` is needed. For each field of `Item` it gives one of

- ``"column"``: that column; ``"question.text"`` looks inside an object;
- ``"{task}_{name}/{path}"``: a text with columns in it; ``{path|stem}`` is the path without its suffix;
- ``["choice_a", "choice_b"]``: a list of the columns' values, those that are missing or empty left out;
- ``{"text": "speech"}``: the same text for every record;
- ``{"values_of": "gt"}``, for choices: all values that the column has in the file;
- ``{"option": "answer_gt"}``: a column that holds an option's text or its letter;
- ``{"other_than": "answer"}``: the one option that is not this column's, where there are two;
- ``{"named_in": "caption"}``: the one option whose words stand in the column; none where that is not one.

``where`` changes fields for records with a certain value. With ``conditions`` a record becomes one item for
each, the condition's fields going before the others; the id then ends in ``:condition``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BenchmarkError, ItemError
from .answer_matching import options_inside
from .collection import Exclusion
from .items import Item
from .records import COLUMNS, item_of_record

__all__ = ["FieldMapping", "read_mapping", "shipped_mappings"]

_FOLDER = Path(__file__).parent / "mappings"
_MANY = 12  # values of a column that can still be the options of a question
_FORMS = ("text", "values_of", "option", "other_than", "named_in")
_HOLE = re.compile(r"\{([^{}|]+)(\|stem)?\}")


def shipped_mappings() -> tuple[str, ...]:
    """Names of the mappings that ship, for `load_benchmark` and ``fields=``."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.json")))


def read_mapping(name_or_file: str | Path) -> FieldMapping:
    """The mapping that ships under a name, or that of a file; BenchmarkError where there is none."""
    shipped = str(name_or_file) in shipped_mappings()
    file = _FOLDER / f"{name_or_file}.json" if shipped else Path(name_or_file).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        known = ", ".join(shipped_mappings())
        raise BenchmarkError(
            f"The field mapping {str(name_or_file)!r} cannot be read: {error}. Give a JSON file or {known}."
        ) from error
    return FieldMapping.of(content, name=file.stem)


@dataclass(frozen=True)
class FieldMapping:
    """What a mapping file says; see the module for the forms of a field.

    Attributes:
        fields: field of an item -> form.
        conditions: condition -> fields that differ; empty: one item a record.
        where: rules with ``column``, ``is`` and ``fields``.
        title, source, note: for people.
        verified: whether it was tried on the released files.
    """

    fields: Mapping[str, Any]
    name: str = ""
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    where: Sequence[Mapping[str, Any]] = ()
    title: str = ""
    source: str = ""
    note: str = ""
    verified: bool = False

    @classmethod
    def of(cls, content: Any, name: str = "") -> FieldMapping:
        """From the content of a file, or from ``{field: form}`` alone."""
        if not isinstance(content, Mapping):
            raise BenchmarkError(f"The field mapping {name!r} is no object: {content!r}.")
        if "fields" not in content:
            content = {"fields": content}
        known = set(cls.__dataclass_fields__) - {"name"}
        if unknown := sorted(set(content) - known):
            raise BenchmarkError(f"The field mapping {name!r} has {unknown}: choose among {sorted(known)}.")
        made = cls(**content, name=name)
        rules = [rule.get("fields", {}) for rule in made.where]
        for fields in (made.fields, *made.conditions.values(), *rules):
            _check(fields, name)
        return made

    def items(
        self, records: Sequence[Any], audio_root: str | Path | None, file: Path
    ) -> tuple[list[Item], list[Exclusion]]:
        """The items that records describe, and what cannot be one.

        Raises:
            BenchmarkError: a column that the mapping names is in no record.
        """
        good = [record for record in records if isinstance(record, Mapping)]
        self.check_columns(good, file)
        forms = (self.fields, *self.conditions.values(), *(rule["fields"] for rule in self.where))
        values = {
            form["values_of"]: _values(good, form["values_of"])
            for fields in forms
            for form in fields.values()
            if isinstance(form, Mapping) and "values_of" in form
        }
        items, excluded = [], []
        for number, record in enumerate(records, start=1):
            for condition in self.conditions or ("",):
                try:
                    items.append(self._item(record, number, condition, audio_root, values))
                except ItemError as error:
                    excluded.append(Exclusion.of(error))
        return items, excluded

    def _item(
        self,
        record: Any,
        number: int,
        condition: str,
        audio_root: str | Path | None,
        values: Mapping[str, list[str]],
    ) -> Item:
        if not isinstance(record, Mapping):
            raise ItemError(f"record {number}", "record", f"{record!r} is not an object.")
        fields = dict(self.fields)
        for rule in self.where:
            fields |= rule["fields"] if _look(record, rule["column"]) == rule["is"] else {}
        fields |= self.conditions.get(condition, {})
        name = str(
            _value(fields.get("id", {"text": ""}), record, "id", f"record {number}") or f"record {number}"
        )
        found: dict[str, Any] = {"id": f"{name}:{condition}" if condition else name}
        if condition:
            found["condition"] = condition
        for key in ["choices", *(key for key in fields if key not in ("choices", "id"))]:
            if key in fields:
                options = found.get("choices") or ()
                found[key] = _value(fields[key], record, key, found["id"], options, values)
        if isinstance(sounds := found.get("audio"), list):
            if len(sounds) != 1:
                raise ItemError(found["id"], "audio", f"{len(sounds)} sounds: {sounds!r}; an item has one.")
            found["audio"] = sounds[0]
        # under names that no file has, so that the record's own columns stay apart, in ``extra``
        used = {form for form in fields.values() if isinstance(form, str)}
        rest = {key: value for key, value in record.items() if key not in used}
        named = {key: f"item field {key}" for key in COLUMNS}
        return item_of_record(
            rest | {named[key]: value for key, value in found.items()}, number, audio_root, named
        )

    @property
    def renames(self) -> bool:
        """Whether it only gives columns other names; all other columns then mean what they do in MMAU."""
        given = any((self.conditions, self.where, self.title))
        return not given and all(isinstance(f, str) and "{" not in f for f in self.fields.values())

    def check_columns(self, records: Sequence[Any], file: Path) -> None:
        """Refuse a mapping to columns that no record has."""
        columns = {column for record in records if isinstance(record, Mapping) for column in record}
        whole = (self.fields, *self.conditions.values())
        for form in (form for fields in whole for form in fields.values()):
            for column in _columns(form):
                if column not in columns and column.split(".")[0] not in columns:
                    raise BenchmarkError(f"{str(file)!r} has no column {column!r}: it has {sorted(columns)}.")


def _check(fields: Any, name: str) -> None:
    if not isinstance(fields, Mapping):
        raise BenchmarkError(f"The field mapping {name!r} holds {fields!r} in place of fields.")
    for key, form in fields.items():
        if key not in COLUMNS:
            raise BenchmarkError(f"An item has no field {key!r}: choose among {', '.join(COLUMNS)}.")
        plain = isinstance(form, str) or (isinstance(form, list) and all(isinstance(f, str) for f in form))
        if not plain and not (isinstance(form, Mapping) and len(form) == 1 and next(iter(form)) in _FORMS):
            raise BenchmarkError(
                f"The field mapping {name!r}: {key!r} is {form!r}; give a column, a text with {{columns}}, a "
                f"list of columns, or an object with one of {', '.join(_FORMS)}."
            )


def _columns(form: Any) -> list[str]:
    """The columns that must be in some record for this form to make sense."""
    if isinstance(form, str):
        return [hole for hole, _ in _HOLE.findall(form)] if "{" in form else [form]
    if isinstance(form, Mapping):
        kind, column = next(iter(form.items()))
        return [] if kind == "text" else [column]
    return form[:1]


def _look(record: Mapping[str, Any], column: str) -> Any:
    """A column's value, ``a.b`` being b of the object a; None where it is not there."""
    if column in record:
        return record[column]
    first, _, rest = column.partition(".")
    inner = record.get(first)
    return _look(inner, rest) if rest and isinstance(inner, Mapping) else None


def _values(records: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    return sorted({str(value).strip() for record in records if (value := _look(record, column)) is not None})


def _value(
    form: Any,
    record: Mapping[str, Any],
    key: str,
    name: str,
    options: Sequence[Any] = (),
    values: Mapping[str, list[str]] | None = None,
) -> Any:
    """What a form of field ``key`` gives for a record."""
    if isinstance(form, str):
        return _filled(form, record, key, name) if "{" in form else _look(record, form)
    if isinstance(form, list):
        return [
            value for column in form if (value := _look(record, column)) is not None and str(value).strip()
        ]
    kind, given = next(iter(form.items()))
    if kind == "text":
        return given
    if kind == "values_of":
        there = (values or {})[given]
        if len(there) > _MANY:
            problem = f"column {given!r} has {len(there)} values: too many to be the options of a question."
            raise ItemError(name, key, problem, "Map choices to a column that has them.")
        return there
    texts = [str(option).strip() for option in options]
    said = str(_look(record, given) or "").strip()
    if kind == "option":
        letter = re.fullmatch(r"\(?([A-Za-z])[).]?", said)
        index = ord(letter[1].upper()) - ord("A") if letter and said not in texts else len(texts)
        return texts[index] if index < len(texts) else said
    if kind == "other_than":
        others = [text for text in texts if text != said]
        return others[0] if len(others) == 1 else None
    named = options_inside(said, texts)
    return texts[named.pop()] if len(named) == 1 else None


def _filled(template: str, record: Mapping[str, Any], key: str, name: str) -> str:
    def fill(hole: re.Match[str]) -> str:
        value = _look(record, hole[1])
        if value is None:
            raise ItemError(name, key, f"there is no column {hole[1]!r} to fill {template!r} with.")
        return str(PurePosixPath(str(value)).with_suffix("")) if hole[2] else str(value)

    return _HOLE.sub(fill, template)
