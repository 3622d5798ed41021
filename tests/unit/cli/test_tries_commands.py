"""What people type: manifests from everywhere, which rows of them, roots that grow, and the exit codes of commands."""

import gzip
import io
import json
import os

import pandas as pd
import pytest
import typer.main

from flowcache.api import preview
from flowcache.cli.main import app
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from tests.unit.storage.samples import Studio, plan, request
from tests.unit.storage.signers import signer

ROWS = [
    {"id": "cat-1", "prompt": "a red circle", "labels": {"team": "a"}, "steps": 2},
    {"id": "cat-2", "prompt": "a blue square", "labels": {"team": "b"}, "steps": 4},
    {"id": "dog", "prompt": "a green circle", "labels": {"team": "a"}, "steps": 4},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
EXTRA = '{"id": "a", "prompt": "x", "author": "me", "score": 1.5}\n'


def parquet() -> bytes:
    file = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(file)
    return file.getvalue()


@pytest.fixture
def night(tmp_path):
    (tmp_path / "night.jsonl").write_text(LINES)
    return "night.jsonl"


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (LINES.encode(), ["cat-1", "cat-2", "dog"]),
        (gzip.compress(LINES.encode()), ["cat-1", "cat-2", "dog"]),
        (parquet(), ["cat-1", "cat-2", "dog"]),
        (b"id,prompt\r\na,x\r\n", ["a"]),
        (b"\xef\xbb\xbf" + LINES.encode(), ["cat-1", "cat-2", "dog"]),
    ],
)
def test_a_manifest_from_standard_input(tried, content, ids):
    assert tried("-", stdin=content).ids == ids


def test_prompts_from_standard_input(tried):
    assert tried("-", stdin=b"a red circle\na blue square\n").prompts == ["a red circle", "a blue square"]
    found = tried("-", stdin=b"")
    assert found.code == 2 and "-: is empty: a manifest has at least one row" in found.out
    found = tried("-", stdin=b'{"id": "a", "prompt": "x", "oops": 1}\n')
    assert found.code == 2 and "- row 1: oops: is no known field" in found.out


def test_several_manifests_patterns_and_home(tried, tmp_path, monkeypatch):
    for name, row in zip(("a1", "a2", "b[1]"), ROWS, strict=True):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    every = ["cat-1", "cat-2", "dog"]
    assert tried("a1.jsonl", "a2.jsonl", "b[1].jsonl").ids == every
    assert tried("*.jsonl").ids == every and tried("a?.jsonl").ids == tried("a[12].jsonl").ids == every[:2]
    assert tried("a1.jsonl", "b*.jsonl").ids == ["cat-1", "dog"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tried("~/a1.jsonl").ids == tried("~/a[1].jsonl").ids == ["cat-1"]
    assert tried("a1.jsonl", "a?.jsonl", "a1.jsonl").ids == every[:2]
    (tmp_path / "again.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    twice = tried("a1.jsonl", "again.jsonl")
    assert twice.code == 2 and "again.jsonl row 1: id: 'cat-1' is the id of a1.jsonl row 1 too" in twice.out
    (tmp_path / "again.jsonl").unlink()
    lost = tried("a1.jsonl", "none.jsonl")
    assert lost.code == 2 and "none.jsonl: does not exist" in lost.out
    (tmp_path / "c.csv").write_text("id,prompt\nc,x\n")
    assert tried("a1.jsonl", "c.csv").ids == ["cat-1", "c"]
    found = tried("a1.jsonl", output="~/films")
    assert json.loads(found.out)["output"] == str(tmp_path / "films")


@pytest.mark.parametrize(
    ("how", "code", "labels"),
    [
        ([], 2, None),
        (["--extra", "refuse"], 2, None),
        (["--extra", "labels"], 0, {"author": "me", "score": "1.5"}),
        (["--extra", "ignore"], 0, {}),
    ],
)
def test_fields_that_no_row_has(tried, tmp_path, how, code, labels):
    (tmp_path / "m.jsonl").write_text(EXTRA)
    found = tried("m.jsonl", *how)
    assert found.code == code
    if labels is None:
        assert "m.jsonl row 1: author: is no known field; known are" in found.out
    else:
        assert found.each("labels") == [labels]


def test_other_answers_to_fields_are_refused(tried, night):
    found = tried(night, "--extra", "keep")
    assert found.code == 2 and "--extra: got 'keep'; accepted: labels, ignore, refuse" in found.out


def test_extra_columns_of_pandas(tried, tmp_path):
    frame = pd.DataFrame({"id": [1], "prompt": ["x"], "when": [pd.Timestamp("2026-11-30")], "views": [3]})
    frame.to_parquet(tmp_path / "m.parquet")
    found = tried("m.parquet", "--extra", "labels")
    assert found.code == 0 and found.each("labels")[0]["views"] == "3"
    assert "2026" in found.each("labels")[0]["when"]


def test_what_is_doubtful_is_an_error_with_strict(tried, tmp_path):
    (tmp_path / "m.jsonl").write_text('{"id": "a", "prompt": "a zebra"}\n{"id": "b", "prompt": "a red circle"}\n')
    plain, strict = tried("m.jsonl"), tried("m.jsonl", "--strict")
    assert plain.code == 0 and "does not know 'zebra'" in plain.err
    assert strict.code == 2 and "m.jsonl row 1: prompt: " in strict.out and "zebra" in strict.out
    assert tried("m.jsonl", "--strict", "--only", "b").code == 0
    (tmp_path / "s.jsonl").write_text('{"id": "a", "prompt": "a red circle", "seconds": 1}\n')
    assert "seconds: got 1, which becomes" in tried("s.jsonl").err and tried("s.jsonl", "--strict").code == 2


SELECTED = {
    "an id": (["--only", "dog"], ["dog"]),
    "two ids": (["--only", "dog", "--only", "cat-1"], ["cat-1", "dog"]),
    "a pattern": (["--only", "cat-*"], ["cat-1", "cat-2"]),
    "the first": (["--limit", "2"], ["cat-1", "cat-2"]),
    "the first of a pattern": (["--only", "cat-*", "--limit", "1"], ["cat-1"]),
    "a label": (["--where", "labels.team = 'a'"], ["cat-1", "dog"]),
    "a number": (["--where", "steps >= 4"], ["cat-2", "dog"]),
    "both": (["--where", "steps >= 4 and not labels.team = 'b'"], ["dog"]),
    "a text": (["--where", "prompt like '%circle%'", "--limit", "1"], ["cat-1"]),
}


@pytest.mark.parametrize("name", SELECTED)
def test_which_rows_are_meant(tried, night, name):
    words, ids = SELECTED[name]
    assert tried(night, *words).ids == ids


def test_a_sample_is_the_same_each_time_and_other_rows_are_not_judged(tried, tmp_path, night):
    sample = tried(night, "--sample", "2")
    assert sample.code == 0 and len(sample.ids) == 2 and tried(night, "--sample", "2").ids == sample.ids
    (tmp_path / "bad.jsonl").write_text(LINES + '{"id": "eel", "prompt": "x", "steps": -1}\n')
    assert tried("bad.jsonl", "--only", "dog").ids == ["dog"]
    assert tried("bad.jsonl").code == 2


MISSED = {
    "a typo": (["--only", "cta-1"], "--only: 'cta-1' names no video of night.jsonl; did you mean 'cat-1'"),
    "nothing alike": (["--only", "zebra"], "'zebra' names no video of night.jsonl; known are cat-1, cat-2, dog"),
    "one of two": (["--only", "dog", "--only", "x*"], "'x*' names no video of night.jsonl"),
    "no row": (["--where", "steps > 100"], "night.jsonl: has no row that is meant"),
    "no condition": (["--where", "steps >"], "--where: 'steps >': a value is missing"),
    "no field": (["--where", "stepz = 1"], "--where: 'stepz = 1': 'stepz' is no field of a row; did you mean 'steps'"),
    "no setting": (["--set", "stepz=1"], "--set: stepz: is no field of a row; did you mean 'steps'?"),
    "a row's own": (["--set", "id=x"], "--set: id: is a row's own"),
    "out of range": (
        ["--set", "fps=0.5"],
        "--set: fps: got 0.5; accepted: a whole number from 1 to 120, or a fraction",
    ),
    "no value": (["--set", "steps"], "--set: got 'steps'; accepted: FIELD=VALUE"),
    "no size": (["--size", "large"], "--size: got 'large'; accepted: WIDTHxHEIGHT"),
    "--as alone": (["--as", "new"], "--as: is given without --extend"),
}


@pytest.mark.parametrize("name", MISSED)
def test_what_is_mistyped_is_told(tried, night, name):
    words, says = MISSED[name]
    found = tried(night, *words)
    assert found.code == 2 and says in found.out, found.out


SETTINGS = {
    "steps": (["--set", "steps=3"], {"steps": 3}),
    "a label": (["--set", "labels.night=monday"], {"labels": {"team": "a", "night": "monday"}}),
    "a fraction": (["--set", "fps=24000/1001"], {"fps": "24000/1001"}),
    "a decimal": (["--set", "fps=29.97"], {"fps": "30000/1001"}),
    "options of their own": (["--seed", "5", "--steps", "6", "--guidance", "2", "--size", "64x64"],
                             {"seed": 5, "steps": 6, "guidance": 2.0, "width": 64, "height": 64}),
    "a policy": (["--set", "policy=off"], {"policy": {"name": "off"}}),
    "two": (["--set", "seed=1", "--set", "priority=7"], {"seed": 1, "priority": 7}),
    "seconds": (["--set", "seconds=1"], {"id": "cat-1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_what_all_rows_are_given(tried, night, name):
    words, wanted = SETTINGS[name]
    found = tried(night, *words, "--only", "cat-1")
    assert found.code == 0, found.out
    assert found.requests[0].items() >= wanted.items()


@pytest.fixture
def begun(night, tmp_path, monkeypatch):
    """A root of the night, of which the first segment of cat-1 is committed."""
    records = []
    monkeypatch.setattr("flowcache.api.outlook", lambda store, record, *rest: records.append(record))
    preview(str(tmp_path / night), output=str(tmp_path / "out"))
    store, one = Store(str(tmp_path / "out")), request("cat-1", 1)
    begin_run(store, records[0])
    Studio(store, (one,)).render(plan([one])[0], None)
    return tmp_path / night


def test_a_root_that_grows_is_told_before(tried, begun):
    more = json.dumps({"id": "eel", "prompt": "a red circle"}) + "\n"
    assert tried(begun).states == {"cat-1": "begun", "cat-2": "waiting", "dog": "waiting"}
    begun.write_text(LINES + more)
    plainly = tried(begun)
    assert plainly.code == 2 and "eel" in plainly.out
    assert tried(begun, "--extend").states["eel"] == "new"
    begun.write_text(LINES.replace("a blue square", "a blue circle") + more)
    found = tried(begun, "--extend")
    assert found.code == 0 and found.states["cat-2"] == "corrected" and found.states["dog"] == "waiting"
    assert tried(begun, "--extend", "--only", "eel").states == {"eel": "new"}
    other = ["--extend", "--only", "cat-1", "--set", "steps=3"]
    refused = tried(begun, *other)
    assert refused.code == 2 and refused.states == {"cat-1": "refused"} and "steps" in refused.out
    for name, new in (("cat-1b", "cat-1b"), ("{id}-2", "cat-1-2")):
        found = tried(begun, *other, "--as", name)
        assert found.code == 0 and found.states == {new: "new"}, found.out
    taken = tried(begun, *other, "--as", "dog")
    assert taken.code == 2 and "--as: 'dog' is the id of another video there; accepted: one that is new" in taken.out


def test_plan_takes_the_same(command, night, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, videos in (
        ([night], 3),
        ([night, "--only", "cat-*"], 2),
        ([night, "--limit", "1", "--set", "steps=3"], 1),
    ):
        code, out, err = command("plan", *words, "--json")
        assert code == 0 and json.loads(out)["videos"] == videos, err
    code, out, _ = command("plan", "-", "--json", stdin=b"a red circle\n")
    assert code == 0 and json.loads(out)["videos"] == 1
    for words, says in ((["none.jsonl"], "does not exist"), ([night, "--only", "cta-1"], "did you mean 'cat-1'")):
        code, out, _ = command("plan", *words, "--json")
        assert code == 2 and says in json.loads(out)["error"]
    code, _, err = command("plan")
    assert code == 2 and "manifest" in err


COMMANDS = typer.main.get_command(app).commands
ELSEWHERE = {"bench", "render", "submit", "plan", "models", "calibrate", "stop"}  # whose first word is no output
NEEDS = {"cancel": ["a"], "skip": ["a"], "prioritise": ["3", "a"], "add": ["night.jsonl"], "stop": []}


@pytest.mark.parametrize("name", sorted((COMMANDS.keys() - ELSEWHERE) | {"stop"}))
@pytest.mark.parametrize("empty", [False, True])
def test_every_command_on_an_output_that_is_not_there_ends_with_2(command, night, tmp_path, monkeypatch, name, empty):
    monkeypatch.chdir(tmp_path)
    if name == "sign":
        pytest.importorskip("c2pa")
        someone = signer()
        monkeypatch.setenv("FLOWCACHE_SIGN_CERT", someone.chain)
        monkeypatch.setenv("FLOWCACHE_SIGN_KEY", someone.key)
    if empty:
        (tmp_path / "none").mkdir()
    code, out, err = command(name, "none", *NEEDS.get(name, []))
    assert code == 2, err
    assert "holds no run" in err and "Traceback" not in err and not list((tmp_path / "none").glob("*"))
    code, out, _ = command(name, "none", *NEEDS.get(name, []), "--json")
    assert code == 2 and json.loads(out)["exit_code"] == 2


@pytest.mark.parametrize("name", sorted((COMMANDS.keys() - ELSEWHERE) | {"stop"}))
def test_every_command_on_what_is_no_output_ends_with_2(command, tmp_path, monkeypatch, night, name):
    monkeypatch.chdir(tmp_path)
    for wrong in ("ftp://host/x", "", "s3://", "s3://b!/x"):
        code, _, err = command(name, wrong, *NEEDS.get(name, []))
        assert code == 2 and ("accepted:" in err or "it needs" in err), (name, wrong, err)


@pytest.mark.parametrize("name", ["export", "sign", "links", "cancel", "skip", "resume", "prioritise"])
def test_an_unknown_id_is_told_in_one_way_by_every_command(command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Studio(Store("out"), (request("cat", 1), request("dog", 1))).run()
    if name in ("cancel", "skip", "resume", "prioritise"):
        os.remove("out/_SUCCESS")
    words = {"prioritise": ["3", "cta"], "sign": ["cta", "--sign-cert", "none", "--sign-key", "none"]}
    code, _, err = command(name, "out", *words.get(name, ["cta"]))
    assert code == 2
    if name != "sign":  # which needs a key first
        assert "'cta' names no video of run" in err and "did you mean 'cat'?" in err


def test_the_home_folder_is_known_wherever_a_path_is_typed(command, tmp_path, monkeypatch):
    """As shells leave it in `--to=~/page.html`, and as files of jobs say it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    Studio(Store("home/night"), (request("cat", 1),)).run()
    for words in (["report", "--to=~/page.html"], ["sheet", "--to=~/sheet.png"], ["export", "--to=~/films"]):
        code, _, err = command(words[0], "~/night", *words[1:])
        assert code == 0, err
    assert {each.name for each in (tmp_path / "home").iterdir()} == {"night", "page.html", "sheet.png", "films"}
    (tmp_path / "home/m.txt").write_text("a red circle\n")
    (tmp_path / "home/job.yaml").write_text("manifest: ~/m.txt\noutput: ~/out\n")
    code, out, err = command("render", "--job=~/job.yaml", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["output"] == str(tmp_path / "home/out"), err
    assert [each.name for each in tmp_path.iterdir()] == ["home"]


def test_version_and_help(command):
    from flowcache import __version__

    assert command("--version") == (0, f"flowcache {__version__}\n", "")
    for name in COMMANDS:
        assert command(name, "--help")[0] == 0
    assert command("rendre")[0] == 2 and command("render", "--no-such-option")[0] == 2
