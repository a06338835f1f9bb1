"""Settings: YAML and `key=value` overrides become typed, frozen values, or all mistakes at once.

Neither this file nor any file that declares settings imports torch, transformers or ray, so a typo
is answered in under a second. (Over 300 lines, because reading, messages and comparisons walk the
same fields.)
"""

import copy
import difflib
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
import yaml
from pydantic.fields import FieldInfo

from ocr.errors import UserError
from ocr.overrides import USUAL_NAMES, apply_override

OnResume = Literal["refuse", "rounding", "free"]


class Settings(pydantic.BaseModel):
    """The parent of every group of settings: unknown keys are mistakes, values never change."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    renamed: ClassVar[dict[str, str]] = {}  # old name of a setting → its name


def with_home(path: str) -> str:
    """Return a path with `~` or `~user` at its beginning replaced by that home folder."""
    return os.path.expanduser(path)


PathText = Annotated[str, pydantic.AfterValidator(with_home)]  # a path, a name or a URL


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
        apply_override(kind, changed, override)
    return parse_settings(kind, changed, where)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; UserError when it is missing or no mapping."""
    try:
        with open(path, "rb") as file:
            values = yaml.load(file, _UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except OSError as problem:
        raise UserError(
            f"{path}: {problem.strerror or problem}; name a YAML config, such as "
            "configs/odia_ctc.yaml"
        ) from None
    except (yaml.YAMLError, ValueError) as problem:
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
        lines = [_describe(kind, error) for error in _first_causes(problem.errors())]
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


def _first_causes(errors: Sequence[Any]) -> list[Any]:
    """Leave out that a list is too short where only a mistake in an item made it so."""
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(
            other["loc"][: len(error["loc"])] == error["loc"] != other["loc"] for other in errors
        )
    ]


def _describe(kind: type[Settings], error: Any) -> str:
    location = tuple(error["loc"])
    key = ".".join(_as_written(kind, location))
    if error["type"] == "extra_forbidden" and key in kind.renamed:
        return f"{key} is called {kind.renamed[key]} now"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown setting; {_hint(kind, location)}"
    if error["type"] == "missing":
        return f"{key}: missing; set it, there is no default"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_tag(key, error)
    if error["type"] in ("dict_type", "model_type"):
        return f"{key}: expected a mapping, such as {{a: b}}, got {error['input']!r}"
    if error["type"] == "tuple_type":
        return f"{key}: expected a list, such as [a, b], got {error['input']!r}"
    value = "" if isinstance(error["input"], (dict, list)) else f", got {error['input']!r}"
    return f"{key + ': ' if key else ''}{error['msg'].removeprefix('Value error, ')}{value}"


def _as_written(kind: type[Settings], location: tuple[Any, ...]) -> Iterator[str]:
    """Yield the parts of a key as a config has them, without the names of a union's members."""
    for number, part in enumerate(location):
        known = _known_keys(kind, location[:number])
        is_of_a_union = isinstance(part, str) and 0 < number < len(location) - 1 and known
        if not (is_of_a_union and part not in known):
            yield str(part)


def _hint(kind: type[Settings], location: tuple[Any, ...]) -> str:
    """Return what was probably meant: the name in another group, else a name like it here."""
    name = str(location[-1])
    meant = {name, USUAL_NAMES.get(name, name)}
    elsewhere = [key for key in _keys_of(kind) if key.rpartition(".")[2] in meant]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    known = _known_keys(kind, location[:-1])
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"


def _keys_of(kind: type[Settings], prefix: str = "") -> list[str]:
    """Return the dotted keys of all settings that are not inside a list."""
    keys = list[str]()
    for name, field in kind.model_fields.items():
        groups = [] if "tuple[" in str(field.annotation) else list(groups_in(field.annotation))
        inner = [key for group in groups for key in _keys_of(group, f"{prefix}{name}.")]
        keys += inner or [prefix + name]
    return list(dict.fromkeys(keys))


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
        field = group.model_fields.get(name)
        if field is not None and not field.is_required():
            return field.default
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
