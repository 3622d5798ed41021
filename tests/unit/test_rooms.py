"""Where tests are: tests/unit mirrors the package, and what tests share has a file of its own."""

import re
from pathlib import Path

UNIT, TESTS = Path(__file__).parent, Path(__file__).parents[1]
ROOT = TESTS.parent
PROGRAMS = {"benchmarks", "training"}  # beside the package, tested as its rooms are


def rooms(folder: Path) -> set[str]:
    """Folders below it, at any depth, that hold Python files: "families/magi"."""
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.py")} - {"."}


def test_every_room_has_unit_tests_and_every_unit_test_a_room():
    ours = rooms(ROOT / "flowcache")
    tested = {path.parent.relative_to(UNIT).as_posix() for path in UNIT.rglob("test_*.py")} - {"."}
    assert {room.partition("/")[0] for room in ours} <= tested
    assert rooms(UNIT) <= ours | PROGRAMS


def test_no_test_file_is_imported():
    """Nor a conftest: helpers that are shared are named for what they hold."""
    pattern = re.compile(r"^\s*(?:from|import) (tests\.\S*\b(?:test_\w+|conftest))\b", re.MULTILINE)
    found = {str(path.relative_to(ROOT)): pattern.findall(path.read_text()) for path in TESTS.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
