"""The rules of docs/design.md that a machine can hold."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ocr.dataset.config import PrepareConfig
from ocr.retraining import RetrainConfig
from ocr.settings import Settings, load_settings, parse_settings, walk_fields
from ray_jobs import settings_page
from serve.config import ServeConfig
from trainers.config import TrainConfig
from trainers.config.export_request import ExportRequest
from trainers.sweep.settings import SweepConfig

PROJECT = Path(__file__).parent.parent
MAY_IMPORT = {
    "ocr": {"ocr"},
    "trainers": {"trainers", "ocr"},
    "serve": {"serve", "ocr"},
    "ray_jobs": {"ray_jobs", "trainers", "serve", "ocr"},
}
MAY_KNOW_RAY = (
    "trainers/finish_on_ray.py",
    "trainers/on_ray.py",
    "trainers/ray_cluster.py",
    "trainers/ray_network.py",
    "trainers/ray_notices.py",
    "trainers/ray_preflight.py",
    "trainers/ray_pulse.py",
    "trainers/ray_waiting.py",
    "trainers/ray_watchdog.py",
    "ocr/local_ray.py",
    "trainers/sweep/",
    "serve/",
    "ray_jobs/",
)
# written for other programs: tests/test_cluster_yaml.py, tests/test_manifests.py
FOREIGN = ("cluster", "kuberay", "skypilot", "slurm")
CONFIGS = sorted(
    file for file in PROJECT.glob("configs/**/*.yaml") if file.parent.name not in FOREIGN
)
KINDS = [TrainConfig, PrepareConfig, SweepConfig, ServeConfig, RetrainConfig, ExportRequest]
MAX_FUNCTION, MAX_FILE, MAX_SCRIPT = 40, 300, 50
SCRIPTS = sorted(
    file.stem
    for file in (PROJECT / "ray_jobs").glob("*.py")
    if file.stem not in ("__init__", "bulk", "command", "units", "settings_page")
)


def modules() -> list[Path]:
    return [file for package in MAY_IMPORT for file in sorted((PROJECT / package).rglob("*.py"))]


def name_of(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(file: Path) -> Iterator[str]:
    """Every import, at module level, in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_package_imports_only_what_it_may(file: Path) -> None:
    path = str(file.relative_to(PROJECT))
    roots = {name.partition(".")[0] for name in imported_by(file)}
    assert roots & set(MAY_IMPORT) <= MAY_IMPORT[path.partition("/")[0]]
    assert "ray" not in roots or path.startswith(MAY_KNOW_RAY), f"only in {MAY_KNOW_RAY}"


def test_there_is_no_circle_of_imports() -> None:
    known = {name_of(file): file for file in modules()}
    graph = {
        name: {other for other in imported_by(file) if other in known and other != name}
        for name, file in known.items()
    }
    done, path = set[str](), list[str]()

    def visit(name: str) -> None:
        if name in done:
            return
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        path.append(name)
        for other in sorted(graph[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def rooms() -> dict[str, list[str]]:
    """Folder → module names, as the map of docs/design.md lists them."""
    page = (PROJECT / "docs" / "design.md").read_text(encoding="utf-8")
    section = page.partition("## The house\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for folder, text in re.findall(r"^- \*\*(\S+/)\*\* (.*(?:\n  .*)*)", section, re.MULTILINE):
        found[folder] = re.findall(r"`([a-z0-9_]+)`", text)
    return found


def test_the_map_has_every_module_once_and_nothing_else() -> None:
    listed = [f"{folder}{name}.py" for folder, names in rooms().items() for name in names]
    there = [str(file.relative_to(PROJECT)) for file in modules() if file.stem != "__init__"]
    assert sorted(listed) == sorted(there)


def test_every_path_that_the_design_page_names_exists() -> None:
    page = (PROJECT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(
        re.findall(
            r"`((?:ocr|trainers|serve|ray_jobs|tests|benchmarks|configs|docs)/[\w./]*)`", page
        )
    )
    assert named
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []


def test_every_config_needs_the_checkout_alone() -> None:
    outside = [path.name for path in CONFIGS if "../" in path.read_text(encoding="utf-8")]
    assert CONFIGS and outside == []


@pytest.mark.parametrize("package", [*MAY_IMPORT, "tests", "benchmarks"])
def test_no_function_is_longer_than_a_screen(package: str) -> None:
    kinds, too_long = (ast.FunctionDef, ast.AsyncFunctionDef), []
    most = MAX_FUNCTION if package in MAY_IMPORT else 70  # tests are stories
    for file in sorted((PROJECT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, kinds)
                and node.end_lineno
                and node.end_lineno - node.lineno >= most
            ):
                too_long.append(f"{file.relative_to(PROJECT)}: {node.name}")
    assert too_long == []


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_long_file_says_why(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    about = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    reason = "Over 300 lines" in about
    assert len(text.splitlines()) <= MAX_FILE or reason


def test_the_settings_page_is_current() -> None:
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert page == settings_page.text(), "run python -m ray_jobs.settings_page"


def test_the_settings_page_lists_every_environment_variable_of_ours() -> None:
    foreign = [file for name in FOREIGN for file in (PROJECT / "configs" / name).iterdir()]
    sources = [*modules(), *PROJECT.glob("tests/**/*.py"), PROJECT / "cluster.yaml", *foreign]
    used = {
        name
        for file in sources
        for name in re.findall(r"\bLIPI_[A-Z_]*[A-Z]\b", file.read_text(encoding="utf-8"))
    }
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert {name for name in used if f"`{name}`" not in page} == set()


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


@pytest.mark.parametrize(
    "page",
    ["docs/training.md", "docs/sweeps.md", "docs/formats.md", "docs/migrating/chandra.md"],
)
def test_every_config_in_the_documents_loads(page: str) -> None:
    blocks = [
        block.partition("```")[0]
        for block in (PROJECT / page).read_text(encoding="utf-8").split("```yaml\n")[1:]
    ]
    assert blocks
    for values in map(yaml.safe_load, blocks):
        parse_settings(SweepConfig if "space" in values else PrepareConfig, values, page)


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_says_what_its_change_means_for_a_run(kind: type[Settings]) -> None:
    for key, field in walk_fields(kind):
        extra = field.json_schema_extra
        assert isinstance(extra, dict) and extra.get("on_resume") in (
            "refuse",
            "rounding",
            "free",
        ), key
        assert field.description, key
        assert field.description[0].upper() == field.description[0], f"{key}: {field.description}"


def test_settings_know_neither_torch_nor_ray_nor_transformers() -> None:
    code = (
        "import sys, trainers.config, trainers.sweep.settings, ocr.dataset.config, "
        "ray_jobs.command; print(sorted({'torch', 'ray', 'transformers', 'numpy'} & "
        "set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    ).stdout
    assert found.strip() == "[]"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy_and_a_script_is_a_table_of_contents(script: str) -> None:
    file = PROJECT / "ray_jobs" / f"{script}.py"
    assert len(file.read_text().splitlines()) <= MAX_SCRIPT
    code = (
        "import sys, runpy\nsys.argv = ['x', '--help']\ntry:\n    "
        f"runpy.run_path({str(file)!r}, run_name='__main__')\nexcept SystemExit as end:\n    "
        "assert end.code == 0\n"
    )
    code += "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, capture_output=True)
