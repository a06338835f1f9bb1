"""The house rules of docs/design.md that a machine can hold."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ocr.dataset.config import PrepareConfig
from ocr.settings import Settings, load_settings, parse_settings, walk_fields
from serve.config import ServeConfig
from trainers.config import TrainConfig
from trainers.sweep.settings import SweepConfig

PROJECT = Path(__file__).parent.parent
MAY_IMPORT = {
    "ocr": {"ocr"},
    "trainers": {"trainers", "ocr"},
    "serve": {"serve", "ocr"},
    "ray_jobs": {"ray_jobs", "trainers", "serve", "ocr"},
}
MAY_KNOW_RAY = ("trainers/on_ray.py", "trainers/sweep/", "serve/", "ray_jobs/")
CONFIGS = sorted(PROJECT.glob("configs/**/*.yaml"))


def modules() -> list[Path]:
    return [file for package in MAY_IMPORT for file in sorted((PROJECT / package).rglob("*.py"))]


def imported_by(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_package_imports_only_what_it_may(file: Path) -> None:
    place = str(file.relative_to(PROJECT))
    roots = {name.partition(".")[0] for name in imported_by(file)}
    assert roots & set(MAY_IMPORT) <= MAY_IMPORT[place.partition("/")[0]]
    assert "ray" not in roots or place.startswith(MAY_KNOW_RAY), (
        "ray is imported only in trainers/on_ray.py, trainers/sweep/, serve/ and ray_jobs/"
    )


def config_class(file: Path) -> type[Settings]:
    return {"data": PrepareConfig, "sweeps": SweepConfig, "serve.yaml": ServeConfig}.get(
        file.relative_to(PROJECT / "configs").parts[0], TrainConfig
    )


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_config_loads_and_opens_with_its_command(file: Path) -> None:
    load_settings(config_class(file), file)
    first = file.read_text().splitlines()[0]
    assert first.startswith("# python ray_jobs/")
    assert str(file.relative_to(PROJECT)) in first


@pytest.mark.parametrize("page", ["README.md", "docs/formats.md"])
def test_every_config_in_the_documents_loads(page: str) -> None:
    blocks = [
        block.partition("```")[0]
        for block in (PROJECT / page).read_text(encoding="utf-8").split("```yaml\n")[1:]
    ]
    assert blocks
    for values in map(yaml.safe_load, blocks):
        parse_settings(SweepConfig if "space" in values else PrepareConfig, values, page)


@pytest.mark.parametrize("kind", [TrainConfig, PrepareConfig, SweepConfig, ServeConfig])
def test_every_setting_says_what_its_change_means_for_a_run(kind: type[Settings]) -> None:
    for key, field in walk_fields(kind):
        extra = field.json_schema_extra
        assert isinstance(extra, dict) and extra.get("on_resume") in (
            "refuse",
            "rounding",
            "free",
        ), key
        assert field.description, key


def test_settings_know_neither_torch_nor_ray_nor_transformers() -> None:
    code = "import sys, trainers.config, trainers.sweep.settings, ocr.dataset.config, ray_jobs.command; print(sorted({'torch', 'ray', 'transformers', 'numpy'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    ).stdout
    assert found.strip() == "[]"


@pytest.mark.parametrize(
    "script",
    sorted(
        file.stem
        for file in (PROJECT / "ray_jobs").glob("*.py")
        if file.stem not in ("__init__", "command", "units")
    ),
)
def test_help_imports_nothing_heavy_and_a_script_is_a_table_of_contents(script: str) -> None:
    file = PROJECT / "ray_jobs" / f"{script}.py"
    assert len(file.read_text().splitlines()) <= 40
    code = f"import sys, runpy\nsys.argv = ['x', '--help']\ntry:\n    runpy.run_path({str(file)!r}, run_name='__main__')\nexcept SystemExit as end:\n    assert end.code == 0\n"
    code += "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, capture_output=True)


def test_no_function_of_the_loop_is_longer_than_a_screen() -> None:
    for file in [
        PROJECT / "trainers" / "loop.py",
        PROJECT / "trainers" / "on_ray.py",
        PROJECT / "trainers" / "launch.py",
    ]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno and node.end_lineno - node.lineno < 40, (
                    f"{file.name}: {node.name}"
                )
