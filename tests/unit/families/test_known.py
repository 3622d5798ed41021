"""Families by name, and what is told of them."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from flowcache.errors import InputError
from flowcache.families import known
from flowcache.families.base import Family
from flowcache.families.known import families, family, family_of, recognise
from flowcache.families.magi.config import MagiConfig
from flowcache.families.registry import bundled, find

DOC = Path(__file__).parents[3] / "docs" / "families.md"


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="family: got 'sora'; accepted: skyreels, magi, or that of an installed"):
        family("sora")


@pytest.mark.parametrize("code", ["raise RuntimeError('no GPU')", "def (:", "1 / 0", "import nowhere_at_all"])
def test_a_package_that_fails_while_it_is_imported_is_named(tmp_path, monkeypatch, code):
    (tmp_path / "faulty_family.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(known, "added", lambda: {"f": EntryPoint("f", "faulty_family:FAMILY", known.GROUP)})
    with pytest.raises(InputError, match="'f' of faulty_family:FAMILY can't be imported from faulty_family:FAMILY"):
        family("f")


def test_each_gives_all_that_is_asked():
    assert not any(each.__abstractmethods__ for each in map(type, families()))
    for each in families():
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
