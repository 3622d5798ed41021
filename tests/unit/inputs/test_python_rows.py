"""Rows from Python, in all that holds them: the same requests, and the same sentences as of a manifest."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from flowcache.errors import InputError
from flowcache.inputs.given import Given, checked
from flowcache.inputs.python_rows import plain

RED, GREEN = "a red circle moving right on a blue background", "a green square growing on a white background"
ROWS = [{"id": "1", "prompt": RED, "seed": 7}, {"id": "2", "prompt": GREEN}]


class Dataset:
    """As Ray Data has them."""

    def columns(self):
        return ["id", "prompt", "seed"]

    def iter_rows(self):
        yield from pa.Table.from_pylist(ROWS).to_pylist()


class Arrow:
    """As Hugging Face's data sets are: an iterable of objects."""

    def __iter__(self):
        return iter(ROWS)


FORMS = {
    "list": ROWS,
    "tuple": tuple(ROWS),
    "generator": (row for row in ROWS),
    "arrow": pa.Table.from_pylist(ROWS),
    "pandas": pd.DataFrame(ROWS),
    "numbers of numpy": [
        {"id": np.int64(1), "prompt": np.str_(RED), "seed": np.float64(7)},
        {"id": 2, "prompt": GREEN},
    ],
    "ray": Dataset(),
    "hugging face": Arrow(),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_the_same_requests(form):
    found = checked(Given(FORMS[form]))
    assert found.problems == [] and found.requests == checked(Given(ROWS)).requests


def test_one_row_prompts_and_paths(tmp_path):
    assert [request.id for request in checked(Given(ROWS[0])).requests] == ["1"]
    assert [request.shots[0].prompt for request in checked(Given([RED, GREEN])).requests] == [RED, GREEN]
    for name in ("m", "n"):
        (tmp_path / f"{name}.txt").write_text(f"{RED} {name}\n")
    assert len(checked(Given(tmp_path / "m.txt")).requests) == 1
    assert len(checked(Given([tmp_path / "m.txt", tmp_path / "n.txt"])).requests) == 2


def test_pictures_and_paths_in_rows(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    given = Given(
        [{"prompt": RED, "image": tmp_path / "a.png"}, {"prompt": GREEN, "image": Image.new("RGB", (64, 64))}]
    )
    found = checked(given)
    assert found.problems == [] and found.requests[0].image == str(tmp_path / "a.png")
    assert found.requests[1].image in given.embedded.files.values()


def test_faults_are_told_as_of_a_manifest(tmp_path):
    bad = [{"prompt": RED, "sede": 1}, {"prompt": ""}, {"prompt": RED, "seconds": np.float64("inf")}]
    told = [str(one).partition(" row ")[2] for one in checked(Given(bad)).problems]
    (tmp_path / "m.jsonl").write_text(
        f'{{"prompt": "{RED}", "sede": 1}}\n{{"prompt": ""}}\n{{"prompt": "{RED}", "seconds": Infinity}}\n'
    )
    assert told == [str(one).partition(" row ")[2] for one in checked(Given(str(tmp_path / "m.jsonl"))).problems]
    assert len(told) == 3
    assert str(checked(Given([])).problems[0]) == "requests: is empty; accepted: at least one row"
    for what, says in (
        (7, "requests: is int; accepted: a manifest"),
        ([RED, 7], "requests row 2: is int; accepted: an"),
    ):
        with pytest.raises(InputError, match=says):
            checked(Given(what))


def test_tables_of_a_manifest_say_the_same_as_the_manifest(tmp_path):
    (tmp_path / "m.csv").write_text(
        'id,shots,label.team,policy\n'
        f'1,"[{{""prompt"": ""{RED}"", ""seconds"": 2}}]",a,"{{""name"": ""paper""}}"\n'
        f'2,"[{{""prompt"": ""{GREEN}"", ""seconds"": 2}}]",,\n'
    )  # fmt: skip
    wanted = checked(Given(str(tmp_path / "m.csv")))
    found = checked(Given(pd.read_csv(tmp_path / "m.csv")))
    assert wanted.problems == found.problems == [] and found.requests == wanted.requests
    broken = checked(Given(pd.DataFrame({"id": ["a", "b"], "prompt": [RED, GREEN], "labels": ["{", None]})))
    assert [request.id for request in broken.requests] == ["b"]
    assert str(broken.problems[0]).startswith("requests row 1: labels: is broken JSON")
    pairs = pa.array([[("team", "a")]], pa.map_(pa.string(), pa.string()))
    assert checked(Given(pa.table({"prompt": [RED], "labels": pairs}))).requests[0].labels == {"team": "a"}


def test_no_column_hides_another():
    names = ["prompt", "prompt"]
    tables = [pd.DataFrame([ROWS[0].values()], columns=["id", *names]), pa.table([[RED], [GREEN]], names=names)]
    for table in tables:
        with pytest.raises(InputError, match="requests: prompt: is the name of two columns"):
            checked(Given(table))


def test_what_other_libraries_have_becomes_plain():
    given = {
        "a": np.arange(2),
        "b": PurePosixPath("x/y"),
        "c": pd.NA,
        "d": pd.NaT,
        "e": (np.bool_(True), {"f": np.int8(3)}),
    }
    assert plain(given) == {"a": [0, 1], "b": "x/y", "c": None, "d": None, "e": [True, {"f": 3}]}
    assert isinstance(plain(Path("x")), str)
