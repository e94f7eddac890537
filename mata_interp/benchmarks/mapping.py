"""Field mappings: one small file says which columns of a benchmark hold which fields of an item.

A mapping file is JSON::

    {
     "title": "name of the benchmark", "source": "where to download it", "verified": false,
     "note": "what is uncertain",
     "fields": {"audio": "path", "choices": ["choice_a", "choice_b"], "answer": {"option": "answer_gt"}},
     "where": [{"column": "task", "is": "grounding", "fields": {"audio": "{path|stem}.flac"}}],
     "conditions": {"neutral": {}, "conflict": {"caption": "adversarial"}}
    }

Only ``fields`` is needed. It maps each field of `Item` to one of these forms:

- ``"column"``: the column's value; ``"question.text"`` is the value ``text`` of the object ``question``;
- ``"{task}_{name}/{path}"``: a template of columns; ``{path|stem}`` is the path without its suffix;
- ``["choice_a", "choice_b"]``: the list of the columns' values, without missing and empty ones;
- ``{"text": "speech"}``: the same text for every record;
- ``{"values_of": "gt"}``, for choices: all values that the column has in the file;
- ``{"option": "answer_gt"}``: a column that holds an option's text or its letter;
- ``{"other_than": "answer"}``: of two options, the one that is not in this column;
- ``{"named_in": "caption"}``: the one option whose words are in the column, if there is exactly one.

``where`` changes fields of records with a certain value. With ``conditions``, a record becomes one item for
each condition, whose fields override the others; the id then ends in ``:condition``.
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
from .records import COLUMNS, option_by_text_or_letter, record_to_item
from .values import plain_value, quote

__all__ = ["FieldMapping", "read_mapping", "shipped_mappings"]

_FOLDER = Path(__file__).parent / "mappings"
_MAX_OPTIONS = 12  # a column with more values cannot be the options of a question
_FORMS = ("text", "values_of", "option", "other_than", "named_in")
_PLACEHOLDER = re.compile(r"\{([^{}|]+)(\|stem)?\}")


def shipped_mappings() -> tuple[str, ...]:
    """Names of the shipped mappings, for `load_benchmark` and ``fields=``."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.json")))


def read_mapping(name_or_file: str | Path) -> FieldMapping:
    """The shipped mapping of this name, or the mapping in a file.

    Raises:
        BenchmarkError: there is no such mapping, or it cannot be read.
    """
    shipped = str(name_or_file) in shipped_mappings()
    file = _FOLDER / f"{name_or_file}.json" if shipped else Path(name_or_file).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        names = ", ".join(shipped_mappings())
        raise BenchmarkError(
            f"The field mapping {str(name_or_file)!r} cannot be read: {error}. Give a JSON file or {names}."
        ) from error
    return FieldMapping.from_dict(content, name=file.stem)


@dataclass(frozen=True)
class FieldMapping:
    """Content of a mapping file; see the module for the forms of a field.

    Attributes:
        fields: field of an item -> form.
        name: name of the mapping.
        conditions: condition -> fields that differ from ``fields``; empty for one item per record.
        where: rules with ``column``, ``is`` and ``fields``.
        title: name of the benchmark.
        source: where to download it.
        note: what is uncertain about the mapping.
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
    def from_dict(cls, content: Any, name: str = "") -> FieldMapping:
        """A mapping from the content of a file, or from ``{field: form}`` alone.

        Raises:
            BenchmarkError: the content has unknown keys, fields or forms.
        """
        if not isinstance(content, Mapping):
            raise BenchmarkError(f"The field mapping {name!r} is not an object: {quote(content)}.")
        if "fields" not in content:
            content = {"fields": content}
        allowed = set(cls.__dataclass_fields__) - {"name"}
        if unknown := sorted(set(content) - allowed):
            raise BenchmarkError(
                f"The field mapping {name!r} has {quote(unknown)}: choose among {sorted(allowed)}."
            )
        mapping = cls(**content, name=name)
        rules = [rule.get("fields", {}) for rule in mapping.where]
        for fields in (mapping.fields, *mapping.conditions.values(), *rules):
            _check_fields(fields, name)
        return mapping

    def items(
        self, records: Sequence[Any], audio_root: str | Path | None, file: Path
    ) -> tuple[list[Item], list[Exclusion]]:
        """The items that records describe, and the exclusions of records that describe none.

        Args:
            records: records of the data file.
            audio_root: folder that audio paths start from and may not leave.
            file: the data file, for error messages.

        Raises:
            BenchmarkError: no record has a column that the mapping names.
        """
        objects = [record for record in records if isinstance(record, Mapping)]
        self.check_columns(objects, file)
        forms = (self.fields, *self.conditions.values(), *(rule["fields"] for rule in self.where))
        column_values = {
            form["values_of"]: _column_values(objects, form["values_of"])
            for fields in forms
            for form in fields.values()
            if isinstance(form, Mapping) and "values_of" in form
        }
        items, excluded = [], []
        for number, record in enumerate(records, start=1):
            for condition in self.conditions or ("",):
                try:
                    values = self._field_values(record, number, condition, column_values)
                    items.append(self._item(record, number, condition, values, audio_root))
                except ItemError as error:
                    excluded.append(Exclusion.from_error(error))
        return items, excluded

    def _fields(self, record: Mapping[str, Any], condition: str) -> dict[str, Any]:
        """Field -> form for one record and condition."""
        fields = dict(self.fields)
        for rule in self.where:
            if _get(record, rule["column"]) == rule["is"]:
                fields |= rule["fields"]
        return {**fields, **self.conditions.get(condition, {})}

    def _field_values(
        self, record: Any, number: int, condition: str, column_values: Mapping[str, list[str]]
    ) -> dict[str, Any]:
        """Field -> value for one record and condition."""
        if not isinstance(record, Mapping):
            raise ItemError(f"record {number}", "record", f"{quote(record)} is not an object.")
        fields = self._fields(record, condition)
        name = f"record {number}"
        if "id" in fields:
            context = _Context("id", name, (), column_values)
            name = str(_evaluate(fields["id"], record, context) or name)
        values: dict[str, Any] = {"id": f"{name}:{condition}" if condition else name}
        if condition:
            values["condition"] = condition
        # the options first, since other forms refer to them
        for key in ["choices", *(key for key in fields if key not in ("choices", "id"))]:
            if key in fields:
                options = [str(option).strip() for option in values.get("choices") or ()]
                context = _Context(key, values["id"], options, column_values)
                values[key] = _evaluate(fields[key], record, context)
        return values

    def _item(
        self,
        record: Mapping[str, Any],
        number: int,
        condition: str,
        values: Mapping[str, Any],
        audio_root: str | Path | None,
    ) -> Item:
        """The item with these field values; columns that are no field's go to ``extra``."""
        used = {form for form in self._fields(record, condition).values() if isinstance(form, str)}
        extra = {key: value for key, value in record.items() if key not in used}
        # under names that no file has, so that they do not collide with the columns in extra
        columns = {key: f"item field {key}" for key in COLUMNS}
        fields = {columns[key]: value for key, value in values.items()}
        return record_to_item(extra | fields, number, audio_root, columns)

    @property
    def only_renames(self) -> bool:
        """Whether the mapping only renames columns; all other columns then have their usual meaning."""
        more = any((self.conditions, self.where, self.title))
        return not more and all(isinstance(form, str) and "{" not in form for form in self.fields.values())

    def check_columns(self, records: Sequence[Any], file: Path) -> None:
        """Check that every column of the mapping is in some record.

        Raises:
            BenchmarkError: a column is in no record.
        """
        columns = {column for record in records if isinstance(record, Mapping) for column in record}
        for fields in (self.fields, *self.conditions.values()):
            for form in fields.values():
                for column in _columns(form):
                    if column not in columns and column.split(".")[0] not in columns:
                        names = quote(sorted(map(str, columns)))
                        raise BenchmarkError(f"{str(file)!r} has no column {column!r}: it has {names}.")


def _check_fields(fields: Any, name: str) -> None:
    """Check that fields exist and that their forms are known."""
    if not isinstance(fields, Mapping):
        raise BenchmarkError(f"The field mapping {name!r} has {quote(fields)} in place of fields.")
    for key, form in fields.items():
        if key not in COLUMNS:
            raise BenchmarkError(f"An item has no field {key!r}: choose among {', '.join(COLUMNS)}.")
        plain = isinstance(form, str) or (isinstance(form, list) and all(isinstance(f, str) for f in form))
        if not plain and not (isinstance(form, Mapping) and len(form) == 1 and next(iter(form)) in _FORMS):
            raise BenchmarkError(
                f"Field mapping {name!r}: {key!r} is {quote(form)}; give a column, a text with {{columns}}, "
                f"a list of columns, or an object with one of {', '.join(_FORMS)}."
            )


def _columns(form: Any) -> list[str]:
    """The columns that some record must have for this form."""
    if isinstance(form, str):
        return [column for column, _ in _PLACEHOLDER.findall(form)] if "{" in form else [form]
    if isinstance(form, Mapping):
        kind, column = next(iter(form.items()))
        return [] if kind == "text" else [column]
    return form[:1]


def _get(record: Mapping[str, Any], column: str) -> Any:
    """A column's value, ``a.b`` being b of the object a; None if it is missing."""
    if column in record:
        return plain_value(record[column])
    first, _, rest = column.partition(".")
    inner = record.get(first)
    return _get(inner, rest) if rest and isinstance(inner, Mapping) else None


def _column_values(records: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """All values of a column, as texts, sorted."""
    values = (_get(record, column) for record in records)
    return sorted({str(value).strip() for value in values if value is not None})


@dataclass(frozen=True)
class _Context:
    """What a form is evaluated for: the field, the item's name, its options, the values of columns."""

    field: str
    item: str
    options: Sequence[str]
    column_values: Mapping[str, list[str]]


def _evaluate(form: Any, record: Mapping[str, Any], context: _Context) -> Any:
    """Value of a form for a record; None if it is missing."""
    if isinstance(form, str):
        return _fill(form, record, context) if "{" in form else _get(record, form)
    if isinstance(form, list):
        values = [_get(record, column) for column in form]
        return [value for value in values if value is not None and str(value).strip()]
    kind, argument = next(iter(form.items()))
    if kind == "text":
        return argument
    if kind == "values_of":
        return _options_from_column(argument, context)
    value = _get(record, argument)
    text = "" if value is None else str(value).strip()
    if kind == "option":
        return option_by_text_or_letter(text, context.options)
    if kind == "other_than":
        alternatives = [option for option in context.options if option != text]
        return alternatives[0] if len(alternatives) == 1 else None
    named = options_inside(text, context.options)
    return context.options[named.pop()] if len(named) == 1 else None


def _options_from_column(column: str, context: _Context) -> list[str]:
    values = context.column_values[column]
    if len(values) > _MAX_OPTIONS:
        problem = f"column {column!r} has {len(values)} values: too many to be the options of a question."
        raise ItemError(context.item, context.field, problem, "Map choices to a column that has them.")
    return values


def _fill(template: str, record: Mapping[str, Any], context: _Context) -> str:
    """A template with the values of its columns."""

    def value(placeholder: re.Match[str]) -> str:
        value = _get(record, placeholder[1])
        if value is None:
            problem = f"there is no column {placeholder[1]!r} to fill {template!r} with."
            raise ItemError(context.item, context.field, problem)
        return str(PurePosixPath(str(value)).with_suffix("")) if placeholder[2] else str(value)

    return _PLACEHOLDER.sub(value, template)
