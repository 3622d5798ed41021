"""Families by name, and what is told of them."""

import re
from pathlib import Path

import pytest

from flowcache.errors import InputError
from flowcache.families import known
from flowcache.families.base import Family
from flowcache.families.check import check
from flowcache.families.known import BUILT_IN, PackageError, family, family_of, recognise
from flowcache.families.magi.config import MagiConfig
from flowcache.families.registry import bundled, find

DOC = Path(__file__).parents[3] / "docs" / "families.md"


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="family: got 'sora'; accepted: skyreels, magi, or that of an installed"):
        family("sora")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs packages for the test: their name, what they offer, and the code of their one module."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def installed(package: str, offers: str, code: str) -> None:
        info = tmp_path / "site" / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{known.GROUP}]\n{offers} = {package}:FAMILY\n")
        (tmp_path / "site" / f"{package}.py").write_text(code)
        known.added.cache_clear()

    yield installed
    known.added.cache_clear()


@pytest.fixture
def published(tmp_path):
    """A checkpoint without flowcache.json, which every family is asked about."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


BROKEN = {
    "raise RuntimeError('no GPU')": "no GPU",
    "def (:": "invalid syntax",
    "1 / 0": "division by zero",
    "import nowhere_at_all": "No module named 'nowhere_at_all'",
    "raise SystemExit(3)": "3",
}
ASKING = """
from flowcache.families.magi.family import FAMILY as MAGI
class Odd(type(MAGI)):
    name = "{name}"
    def marks(self, path): {fault}
FAMILY = Odd()
"""


@pytest.mark.parametrize("code", BROKEN)
def test_a_package_that_fails_while_it_is_imported_concerns_its_own_family_alone(install, published, caplog, code):
    install("faulty_family", "f", code)
    named = f"'f' of faulty_family 1.0 can't be imported from faulty_family:FAMILY: {BROKEN[code]}"
    with pytest.raises(PackageError, match=re.escape(named)):
        family("f")
    assert recognise(published)[0].name == "skyreels"
    assert [named in record.getMessage() for record in caplog.records] == [True]
    assert not check(Path(find("tiny-magi").path)).problems
    with pytest.raises(InputError, match="is no model: give .*left out: 'f' of faulty_family"):
        find("nothing-here")


@pytest.mark.parametrize(("name", "fault"), [("odd", "KeyError(1)"), ("odder", "OSError('x')"), ("oddest", "")])
def test_a_family_that_fails_when_it_is_asked_is_left_out(install, published, caplog, name, fault):
    install(f"{name}_family", name, ASKING.format(name=name, fault=f"raise {fault}" if fault else "return 3"))
    assert recognise(published)[0].name == "skyreels"
    assert f"'{name}' of {name}_family 1.0 fails: {fault or 'AttributeError'}" in caplog.text


def test_one_name_of_two_packages_concerns_nobody_else(install, published):
    for package in ("first_family", "second_family"):
        install(package, "twin", "FAMILY = None")
    with pytest.raises(PackageError, match=r"'twin' is offered twice, by (\w+)_family 1.0 and by (?!\1)\w+_family 1.0"):
        family("twin")
    assert recognise(published)[0].name == "skyreels" and not check(Path(find("tiny-magi").path)).problems
    (published / "flowcache.json").write_text('{"family": "twin"}')
    with pytest.raises(PackageError, match="offered twice"):  # what is damaged is not the checkpoint
        check(published)


def test_a_built_in_family_is_taken_by_nobody(install):
    install("greedy", "magi", "FAMILY = None")
    assert family("magi") is known.BUILT_IN["magi"] and not check(Path(find("tiny-magi").path)).problems
    with pytest.raises(InputError, match="'magi' is offered twice, by flowcache itself and by greedy 1.0; uninstall"):
        family("sora")


def test_each_gives_all_that_is_asked():
    assert not any(each.__abstractmethods__ for each in map(type, BUILT_IN.values()))
    for each in BUILT_IN.values():
        assert family(each.name) is each and all(hasattr(each, name) for name in Family.__annotations__)
    assert family_of(MagiConfig(64, 128, 4, 2, 16, 1)) is family("magi")


@pytest.mark.parametrize("name", bundled())
def test_what_a_model_would_cost_is_its_familys_own(name):
    spec = find(name)
    owner = family(spec.family)
    config = owner.config(owner.layout(Path(spec.path)))
    assert config.family == spec.family and config.kv_heads == spec.heads == owner.heads(owner.layout(Path(spec.path)))


def test_a_file_belongs_to_the_family_that_looks_closer(tmp_path):
    """Any config.json could be a SkyReels-V2 transformer's, but not one of MAGI-1's sections."""
    (tmp_path / "config.json").write_text("{}")
    assert recognise(tmp_path)[0].name == "skyreels"
    (tmp_path / "config.json").write_text('{"model_config": {}}')
    with pytest.raises(InputError, match="accepted: a MAGI-1 config"):
        recognise(tmp_path)
    assert recognise(tmp_path / "nothing") is None


def test_the_manual_names_all_that_a_family_gives():
    text = DOC.read_text()
    named = {*Family.__annotations__, *(name for name in vars(Family) if not name.startswith("_"))}
    assert named == {name for name in named if f"`{name}`" in text}
    needed = {*Family.__abstractmethods__, "name", "policies", "counts"}
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `") and line.count("|") == 4]
    told = {name.strip(" `") for _, names, marked, *_ in rows for name in names.split(",") if marked.strip() == "yes"}
    assert told == needed
