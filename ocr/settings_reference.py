"""A reference of settings, for `--settings` of the scripts and for docs/settings.md.

Written from the classes that declare the settings, so it cannot disagree with them. No torch here.
"""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ocr.errors import UserError
from ocr.settings import Settings, groups_in, tag_of

_BOUNDS = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.MinLen, "min_length", "length ≥"),
    (annotated_types.MaxLen, "max_length", "length ≤"),
    (annotated_types.MultipleOf, "multiple_of", "multiple of"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting: its dotted key, the variant it belongs to (`kind: compact`), and its facts."""

    key: str
    variant: str
    type: str
    default: str
    bounds: str
    on_resume: str
    description: str

    @property
    def facts(self) -> str:
        """Type, default and bounds in a line."""
        return ", ".join(filter(None, [self.type, self.default, self.bounds]))


def entries(
    kind: type[Settings], shared: type[Settings] | None = None, prefix: str = "", variant: str = ""
) -> Iterator[Entry]:
    """Yield the settings of a class and of its groups; groups of `shared` are only named.

    Settings of a union, such as `model.kind`, carry the variant that has them.
    """
    for name, field in kind.model_fields.items():
        key, groups = f"{prefix}{name}", list(groups_in(field.annotation))
        yield _entry(key, variant, field, groups, shared)
        for group in groups:
            if shared and issubclass(group, shared):
                continue
            inner = _variant_of(group) if len(groups) > 1 else variant
            yield from entries(group, shared, f"{key}.", inner)


def as_text(kind: type[Settings], group: str | None, shared: type[Settings] | None = None) -> str:
    """Return the settings of one group, or of all, for a terminal.

    Raises UserError for a group that does not exist.
    """
    known = list(entries(kind, shared))
    if shared:
        known += [entry for one in _variants(shared) for entry in _of_variant(one)]
    chosen = [
        entry
        for entry in known
        if group is None or entry.key == group or entry.key.startswith(f"{group}.")
    ]
    if not chosen:
        groups = dict.fromkeys(entry.key.partition(".")[0] for entry in known)
        raise UserError(f"--settings {group}: no such group or setting; known: {', '.join(groups)}")
    return "\n".join(_lines(chosen))


def as_markdown(
    kind: type[Settings],
    shared: type[Settings] | None = None,
    notes: Mapping[str, str] = types.MappingProxyType({}),
) -> str:
    """Return tables of all settings, one for each top-level group and variant.

    `notes` adds words to the headings of groups.
    """
    return _tables(list(entries(kind, shared)), notes)


def shared_as_markdown(shared: type[Settings]) -> str:
    """Return a table for each variant of the shared group."""
    return "\n".join(_tables(list(_of_variant(one)), {}) for one in _variants(shared))


def _entry(
    key: str,
    variant: str,
    field: FieldInfo,
    groups: Sequence[type[Settings]],
    shared: type[Settings] | None,
) -> Entry:
    extra = field.json_schema_extra
    on_resume = str(extra.get("on_resume", "")) if isinstance(extra, dict) else ""
    is_shared = bool(shared and any(issubclass(group, shared) for group in groups))
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for type_, name, sign in _BOUNDS
        if isinstance(bound, type_)
    ]
    return Entry(
        key,
        variant,
        "sources" if is_shared else "group" if groups else _type(field.annotation),
        "" if groups and not is_shared else _default(field),
        ", ".join(bounds),
        on_resume,
        field.description or "",
    )


def _type(annotation: Any) -> str:
    """Return an annotation in words: `integer`, `text or null`, `a | b`, `list of text`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " \\| ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin in (tuple, list):
        inner = [argument for argument in arguments if argument is not Ellipsis]
        fixed = origin is tuple and Ellipsis not in arguments and len(inner) > 1
        return f"[{', '.join(map(_type, inner))}]" if fixed else f"list of {_type(inner[0])}"
    if origin is dict:
        return "mapping"
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
    return names.get(annotation, "null" if annotation is type(None) else "value")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value) if value != "" else "''"


def _variant_of(group: type[Settings]) -> str:
    for name in ("kind", "name", "format"):
        if name in group.model_fields and tag_of(group) not in (None, PydanticUndefined):
            return f"{name}: {tag_of(group)}"
    return ""


def _variants(shared: type[Settings]) -> Iterator[type[Settings]]:
    """Yield the subclasses that declare a tag of their own."""
    for one in shared.__subclasses__():
        if one.__subclasses__():
            yield from _variants(one)
        else:
            yield one


def _of_variant(one: type[Settings]) -> Iterator[Entry]:
    yield from entries(one, prefix="sources.", variant=_variant_of(one) or _formats(one))


def _formats(one: type[Settings]) -> str:
    field = one.model_fields.get("format")
    return f"format: {' or '.join(typing.get_args(field.annotation))}" if field else ""


def _lines(chosen: Sequence[Entry]) -> Iterator[str]:
    variant = ""
    for entry in chosen:
        if entry.variant != variant:
            variant = entry.variant
            yield f"\n-- {variant}" if variant else ""
        yield f"{entry.key}  ({entry.facts}; on resume: {entry.on_resume})".replace("\\|", "|")
        yield f"    {entry.description}"


def _tables(known: Sequence[Entry], notes: Mapping[str, str]) -> str:
    parts, heading = list[str](), None
    for entry in known:
        top = entry.key.partition(".")[0] if "." in entry.key or entry.type == "group" else ""
        here = (top, entry.variant)
        if here != heading:
            heading = here
            words = [f"`{top}`" if top else "", entry.variant, notes.get(top, "")]
            title = " ".join(filter(None, words))
            parts += ["", f"#### {title or 'top level'}", "", _HEAD]
        cells = (f"`{entry.key}`", entry.type, entry.default, entry.bounds, entry.on_resume)
        described = entry.description.replace("|", "\\|")
        parts.append(f"| {' | '.join([*cells, described])} |")
    return "\n".join(parts)


_HEAD = "| setting | type | default | bounds | on resume | |\n|---|---|---|---|---|---|"
