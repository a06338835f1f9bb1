"""Overrides `a.b=value` of the command line: a text setting takes the word as it stands.

Only settings of other types are read as YAML, and what YAML would pass over is a mistake.
"""

import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import pydantic
import yaml

from ocr.errors import UserError

USUAL_NAMES = {  # other programs' names of settings → ours
    "lr": "learning_rate",
    "batch_size": "global_batch_size",
    "train_batch_size": "global_batch_size",
    "per_device_train_batch_size": "global_batch_size",
    "epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
    "steps": "max_steps",
    "patience": "early_stopping_patience",
    "output_dir": "storage_path",
    "output_path": "output",
    "resume_from_checkpoint": "resume_from",
    "pretrained_model": "init_from",
    "model_name_or_path": "name_or_path",
    "lora_r": "rank",
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
}
_UNSET = ("", "null")  # the words for null where a setting may be a text or null
_NUMBERS = {"tag:yaml.org,2002:int": int, "tag:yaml.org,2002:float": float}
_PLAIN = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", *_NUMBERS}


def apply_override(kind: type[pydantic.BaseModel], values: dict[str, Any], override: str) -> None:
    """Put the value of `a.b=value` into the plain values of a class of settings.

    UserError for a word of another form, a group that is a value, and YAML that is not valid.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(
            f"{override!r}: an override is written key=value, such as train.max_steps=500"
        )
    group: Any = values
    types_here: list[Any] = [kind]
    *parents, last = key.split(".")
    for parent in parents:
        group = _inside(group, parent, override)
        types_here = _fitting(list(_types_below(types_here, parent)), group)
    value = _value_of(text, list(_types_below(types_here, last)), override)
    group[_index(group, last, override) if isinstance(group, list) else last] = value


def value_of(kind: type[pydantic.BaseModel], key: str, text: str) -> Any:
    """Return the plain value that a word gives a setting; UserError as for `apply_override`."""
    return _value_of(text, list(_types_below([kind], key)), f"{key}={text}")


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


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, without what Annotated adds to them."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _fitting(kinds: list[Any], group: Any) -> list[Any]:
    """Leave out the classes of a union that a word of the group, such as its format, is not of."""
    left = [kind for kind in kinds if not (_is_group(kind) and _is_another(kind, group))]
    return left or kinds


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _is_another(kind: type[pydantic.BaseModel], group: Any) -> bool:
    for name in kind.model_fields.keys() & (group if isinstance(group, dict) else {}):
        allowed = list(_members(kind.model_fields[name].annotation))
        is_word = all(typing.get_origin(each) is Literal for each in allowed)
        if is_word and group[name] not in _words_of(allowed):
            return True
    return False


def _types_below(annotations: Iterable[Any], key: str) -> Iterator[Any]:
    """Yield the types of what lies under a key of a group, a mapping or a list."""
    for member in (member for annotation in annotations for member in _members(annotation)):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if _is_group(member):
            if key in member.model_fields:
                yield from _members(member.model_fields[key].annotation)
        elif origin is dict:
            yield from _members(arguments[1])
        elif origin in (list, tuple) and key.isdecimal():
            items = [argument for argument in arguments if argument is not Ellipsis]
            yield from _members(items[min(int(key), len(items) - 1)])


def _value_of(text: str, kinds: Sequence[Any], override: str) -> Any:
    bare = text.strip()
    if str not in kinds:
        is_yaml = bare[:1] in ("[", "{")
    else:  # a path may begin with a bracket
        is_yaml = bare[:1] + bare[-1:] in ("[]", "{}") and any(map(typing.get_origin, kinds))
    return _from_yaml(text, kinds, override) if is_yaml else _word(text, kinds)


def _word(text: str, kinds: Sequence[Any]) -> Any:
    """Return the value of a word that is no list and no mapping."""
    if text in _words_of(kinds):
        return text
    if type(None) in kinds and text in _UNSET:
        return None
    if (str in kinds and not _has_numbers(kinds)) or _is_list_of_texts(kinds):
        return text
    value = _resolved(text.strip())
    return text if value is None and type(None) not in kinds else value


def _is_list_of_texts(kinds: Sequence[Any]) -> bool:
    """Tell whether a bare word can only stand for a list of one."""
    items = list(_types_below(kinds, "0"))
    return str in items or bool(_words_of(items))


def _words_of(kinds: Iterable[Any]) -> set[Any]:
    """Return the words that a setting may be one of."""
    literals = [kind for kind in kinds if typing.get_origin(kind) is Literal]
    return {word for literal in literals for word in typing.get_args(literal)}


def _has_numbers(kinds: Sequence[Any]) -> bool:
    return any(kind in (bool, int, float) for kind in kinds)


def _resolved(text: str) -> Any:
    """Return the number, truth value or null that YAML sees in a whole word; else the word.

    A number is decimal: 010 is ten, and 1:30, which YAML 1.1 takes for ninety, is a word.
    """
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    node = yaml.ScalarNode(tag, text)
    if node.tag not in _PLAIN:
        return text
    if node.tag in _NUMBERS:
        try:
            return _NUMBERS[node.tag](text)
        except ValueError:
            if ":" in text:
                return text
    return loader.construct_object(node)


def _from_yaml(text: str, kinds: Sequence[Any], override: str) -> Any:
    """Return the value of a list or a mapping in YAML, its texts as they stand."""
    loader = yaml.SafeLoader(text)
    try:
        _require_no_comment(text, override)
        node = loader.get_single_node()
        return None if node is None else _built(node, kinds, loader, override)
    except yaml.YAMLError as problem:
        raise UserError(f"{override!r}: the value is not valid YAML: {problem}") from None


def _require_no_comment(text: str, override: str) -> None:
    """Raise UserError where a part of the value would be lost as a comment."""
    end = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if text[end : token.start_mark.index].strip():
            break
        end = max(end, token.end_mark.index)
    if lost := text[end:].strip():
        raise UserError(
            f"{override!r}: YAML takes {lost!r} for a comment; put the value before it in quotes"
        )


def _built(node: yaml.Node, kinds: Sequence[Any], loader: yaml.SafeLoader, override: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [
            _built(item, list(_types_below(kinds, str(index))), loader, override)
            for index, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in built:
                raise UserError(f"{override!r}: duplicate key {key!r}")
            built[key] = _built(value_node, list(_types_below(kinds, key)), loader, override)
        return built
    if getattr(node, "style", None) is not None:  # in quotes
        return node.value
    return _word(node.value, kinds) if str in kinds or _words_of(kinds) else _resolved(node.value)
