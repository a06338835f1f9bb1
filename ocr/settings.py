"""Settings: YAML and `key=value` overrides become typed, frozen values, or all mistakes at once.

Neither this file nor any file that declares settings imports torch, transformers or ray, so a typo
is answered in under a second.
"""

import copy
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pydantic
import yaml
from pydantic.fields import FieldInfo

from ocr.errors import UserError

OnResume = Literal["refuse", "rounding", "free"]


class Settings(pydantic.BaseModel):
    """The parent of every group of settings: unknown keys are mistakes, values never change."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    renamed: ClassVar[dict[str, str]] = {}  # old name of a setting → its name


SettingsT = TypeVar("SettingsT", bound=Settings)


def Setting(  # noqa: N802  (beside pydantic's Field)
    default: Any = ..., *, on_resume: OnResume, description: str, **bounds: Any
) -> Any:
    """Return a pydantic Field that says what a changed value means for an existing run.

    `refuse`: another value is another run. `rounding`: the run continues, equal to rounding.
    `free`: no effect on the weights.
    """
    return pydantic.Field(
        default, description=description, json_schema_extra={"on_resume": on_resume}, **bounds
    )


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a repeated key, where YAML itself keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node in [
            key_node for key_node, _ in node.value if key_node.tag != "tag:yaml.org,2002:merge"
        ]:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise UserError(
                    f"{node.start_mark.name}:{key_node.start_mark.line + 1}: duplicate key {key!r}"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_settings(kind: type[SettingsT], path: Path, overrides: Sequence[str] = ()) -> SettingsT:
    """Read a YAML file, apply `a.b=value` overrides in order and validate.

    UserError lists every mistake at once.
    """
    return settings_from(kind, read_yaml(path), overrides, where=str(path))


def settings_from(
    kind: type[SettingsT], values: Mapping[str, Any], overrides: Sequence[str], where: str
) -> SettingsT:
    """Validate plain values after `a.b=value` overrides, in order; `where` opens every message."""
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        _apply_override(changed, override)
    return parse_settings(kind, changed, where)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; UserError when it is missing or no mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.load(file, _UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except OSError as problem:
        raise UserError(
            f"{path}: {problem.strerror or problem}; name a YAML config, such as "
            "configs/odia_ctc.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: not valid YAML: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    return values


def written_yaml(settings: Settings) -> bytes:
    """Return every setting as YAML with marks at both ends, so that a torn file is told from it."""
    return yaml.safe_dump(
        resolved(settings),
        allow_unicode=True,
        sort_keys=False,
        explicit_start=True,
        explicit_end=True,
    ).encode()


def require_whole(path: Path) -> None:
    """Raise UserError where a file of `written_yaml`, which can be read, is torn.

    A file of an earlier version has no marks; it ends with a newline, or is JSON.
    """
    content = path.read_bytes()
    end = b"\n...\n" if content.startswith(b"---") else b"\n"
    if not content.endswith(end) and not content.startswith(b"{"):
        raise UserError(f"{path}: damaged: its last lines are missing ({len(content):,} bytes)")


def parse_settings(kind: type[SettingsT], values: Mapping[str, Any], where: str) -> SettingsT:
    """Validate plain values; `where` opens every message."""
    try:
        return kind.model_validate(dict(values))
    except pydantic.ValidationError as problem:
        lines = [_describe(kind, error) for error in problem.errors()]
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "1 mistake"
        raise UserError(
            "\n".join([f"{where}: {count}", *(f"  {line}" for line in lines)])
        ) from None


def resolved(settings: Settings) -> dict[str, Any]:
    """Return every setting with its value, as plain YAML-able data."""
    return settings.model_dump(mode="json")


def flattened(settings: Settings) -> dict[str, tuple[Any, OnResume]]:
    """Return dotted key → (plain value, meaning of a change for a run) of each setting."""
    values, rules = _leaves(resolved(settings)), dict(_walk_rules(settings))
    return {key: (value, _rule_of(key, rules)) for key, value in values}


def given_settings(settings: Settings) -> frozenset[str]:
    """Return the dotted keys of the settings that are not at their defaults."""
    return frozenset(
        key for key, _ in _leaves(settings.model_dump(mode="json", exclude_defaults=True))
    )


def changed_settings(old: Settings, new: Settings) -> dict[str, OnResume]:
    """Return dotted key → meaning for an existing run of each setting whose value differs."""
    before, after = flattened(old), flattened(new)
    differing = [
        key
        for key in {**before, **after}
        if key not in before or key not in after or before[key][0] != after[key][0]
    ]
    return {key: (after.get(key) or before[key])[1] for key in differing}


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(
            f"{override!r}: an override is written key=value, such as train.max_steps=500"
        )
    group: Any = values
    *parents, last = key.split(".")
    for parent in parents:
        group = _inside(group, parent, override)
    if isinstance(group, list):
        last = _index(group, last, override)
    try:
        group[last] = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise UserError(f"{override!r}: the value is not valid YAML: {problem}") from None


def _inside(group: Any, key: str, override: str) -> Any:
    """Return the mapping or list under a key; a missing mapping is made."""
    if isinstance(group, list):
        key = _index(group, key, override)
    elif not isinstance(group.get(key), (dict, list)):
        group[key] = {}
    if not isinstance(group[key], (dict, list)):
        raise UserError(f"{override!r}: {key!r} is a value, not a group")
    return group[key]


def _index(group: list[Any], key: str, override: str) -> Any:
    if not key.isdecimal() or int(key) >= len(group):
        raise UserError(f"{override!r}: expected a list index 0–{len(group) - 1}, got {key!r}")
    return int(key)


def _describe(kind: type[Settings], error: Any) -> str:
    location = tuple(error["loc"])
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden" and key in kind.renamed:
        return f"{key} is called {kind.renamed[key]} now"
    if error["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
        return f"{key}: unknown setting; {hint}"
    if error["type"] == "missing":
        return f"{key}: missing; set it, there is no default"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_tag(key, error)
    if error["type"] == "tuple_type":
        return f"{key}: expected a list, such as [a, b], got {error['input']!r}"
    value = "" if isinstance(error["input"], (dict, list)) else f", got {error['input']!r}"
    return f"{key + ': ' if key else ''}{error['msg'].removeprefix('Value error, ')}{value}"


def _describe_tag(key: str, error: Any) -> str:
    """Describe a group of settings whose kind is missing or unknown."""
    tag = str(error["ctx"]["discriminator"]).strip("'")
    if error["type"] == "union_tag_not_found":
        return f"{key}.{tag}: missing; set the kind of these settings"
    known = [name.strip("' ") for name in error["ctx"]["expected_tags"].split(",")]
    close = difflib.get_close_matches(str(error["ctx"]["tag"]), known, n=1)
    return f"{key}.{tag}: {error['ctx']['tag']!r} is none of {', '.join(known)}" + (
        f"; did you mean {close[0]!r}?" if close else ""
    )


def _known_keys(kind: type[Settings], parents: tuple[Any, ...]) -> list[str]:
    groups = [kind]
    for part in parents:
        if any(part in group.model_fields for group in groups):
            groups = [
                g
                for group in groups
                if part in group.model_fields
                for g in groups_in(group.model_fields[part].annotation)
            ]
        else:  # the tag of a discriminated union: keep the member that carries it
            groups = [group for group in groups if tag_of(group) == part] or groups
    return [name for group in groups for name in group.model_fields]


def tag_of(group: type[Settings]) -> Any:
    """Return the value that tells a group from the other members of its union; None without one."""
    for name in ("kind", "name", "format"):
        if name in group.model_fields:
            return group.model_fields[name].default
    return None


def groups_in(annotation: Any) -> Iterator[type[Settings]]:
    """Yield the classes of settings inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    elif typing.get_origin(annotation) in (
        typing.Union,
        types.UnionType,
        typing.Annotated,
        list,
        tuple,
    ):
        for argument in typing.get_args(annotation):
            yield from groups_in(argument)


def walk_fields(kind: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted key, pydantic field) of a class and of the groups inside it."""
    for name, field in kind.model_fields.items():
        yield f"{prefix}{name}", field
        for group in groups_in(field.annotation):
            yield from walk_fields(group, f"{prefix}{name}.")


def _walk_rules(settings: Settings, prefix: str = "") -> Iterator[tuple[str, OnResume]]:
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        yield (
            f"{prefix}{name}",
            extra["on_resume"] if isinstance(extra, dict) and "on_resume" in extra else "refuse",
        )  # type: ignore[misc]
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _walk_rules(value, f"{prefix}{name}.")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _rule_of(key: str, rules: Mapping[str, OnResume]) -> OnResume:
    while key and key not in rules:
        key = key.rpartition(".")[0]
    return rules.get(key, "refuse")
