"""The structure of a checkout in figures: lines, functions, imports and circles.

  python benchmarks/structure.py [CHECKOUT]

Imports inside functions and under TYPE_CHECKING count. A circle is a set of modules of which each
reaches every other.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("ocr", "trainers", "serve", "ray_jobs")
MAX_FUNCTION, MAX_FILE, MAX_LINE = 40, 300, 100


def modules(checkout: Path) -> dict[str, ast.Module]:
    """Module name → its tree."""
    found = {}
    for package in PACKAGES:
        for file in sorted((checkout / package).rglob("*.py")):
            parts = file.relative_to(checkout).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imported_by(tree: ast.Module) -> Iterator[str]:
    """Every imported name, also as a member of its package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """All modules that imports lead to."""
    seen, waiting = set[str](), [start]
    while waiting:
        for other in graph[waiting.pop()] - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other."""
    all_reached = {name: reached(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in all_reached[name] if name in all_reached[other]))
        for name in graph
        if name in all_reached[name]
    }
    return sorted(map(list, groups))


def main() -> None:
    """Print the table."""
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent)
    trees = modules(checkout)
    graph = {
        name: {other for other in imported_by(tree) if other in trees and other != name}
        for name, tree in trees.items()
    }
    texts = [
        file.read_text().splitlines() for p in PACKAGES for file in (checkout / p).rglob("*.py")
    ]
    lengths = [
        node.end_lineno - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno
    ]
    rows = {
        "modules": len(trees),
        "lines of source": sum(map(len, texts)),
        f"lines over {MAX_LINE} columns": sum(len(line) > MAX_LINE for t in texts for line in t),
        "functions": len(lengths),
        "median function, lines": statistics.median(lengths),
        "longest function, lines": max(lengths),
        f"functions over {MAX_FUNCTION} lines": sum(length > MAX_FUNCTION for length in lengths),
        f"files over {MAX_FILE} lines": sum(len(text) > MAX_FILE for text in texts),
        "imports between modules": sum(map(len, graph.values())),
        "circles": len(circles(graph)),
        "modules in circles": sum(map(len, circles(graph))),
    }
    print("\n".join(f"| {name} | {value:,} |" for name, value in rows.items()))
    for circle in circles(graph):
        print("circle:", ", ".join(circle))


if __name__ == "__main__":
    main()
