"""Small files and small functions: what the house asks of every file of the package."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[2] / "flowcache"
FILE, FUNCTION, MEDIAN = 320, 60, 120  # lines
FILES = sorted(PACKAGE.rglob("*.py"))


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """(where, lines) of each function, decorators left out; of one that holds others, theirs count too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            where = f"{file.relative_to(PACKAGE)}:{node.lineno} {node.name}"
            yield where, node.end_lineno - node.lineno + 1


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def test_no_file_is_long():
    assert FILES
    assert not [f"{file.relative_to(PACKAGE)}: {lines(file)}" for file in FILES if lines(file) > FILE]


def test_no_function_is_long():
    found = [each for file in FILES for each in functions(file)]
    assert found
    assert not [f"{where}: {length}" for where, length in found if length > FUNCTION]


def test_most_files_are_short():
    assert median(lines(file) for file in FILES) < MEDIAN
