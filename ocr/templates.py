"""Jinja templates of the packages: a missing variable is an error, blocks leave no empty lines."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(*folders: Path, markdown: bool = False) -> Environment:
    """Return the environment for templates in `folders`; `markdown` switches HTML escaping off."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=not markdown,  # noqa: S701  (Markdown is no HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
