"""Manifests in the forms that people have, each read to its end, and each with what is refused of it."""

import gzip
import io
import json
import sys

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flowcache.inputs import sources
from flowcache.inputs.given import Given, checked
from flowcache.inputs.selection import Selection
from flowcache.inputs.sources import Manifests

RED, GREEN, BLUE = (f"a {colour} circle moving right on a white background" for colour in ("red", "green", "blue"))


def found(*names, extra="refuse", **selection):
    """Ids, prompts and labels of what is read, and all problems as they are told."""
    got = checked(Given(Manifests(tuple(map(str, names))), selection=Selection(extra=extra, **selection)))
    said = [(request.id, request.shots[0].prompt, request.labels) for request in got.requests]
    return said, [str(problem) for problem in got.problems]


def good(*names, **how):
    said, problems = found(*names, **how)
    assert problems == []
    return said


def refused(*names, **how):
    said, problems = found(*names, **how)
    assert problems
    return "\n".join(problems)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


A, B, C = ({"id": name, "prompt": prompt} for name, prompt in zip("abc", (RED, GREEN, BLUE), strict=True))
ABC = [("a", RED, {}), ("b", GREEN, {}), ("c", BLUE, {})]


# Files


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.txt"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_packed_or_not(tmp_path, name, packing):
    csv = f"id,prompt\na,{RED}\nb,{GREEN}\n".encode()
    content = {"m.jsonl": lines(A, B), "m.csv": csv, "m.txt": f"\ufeff{RED}\r\n\n  {GREEN}".encode()}[name]
    pack = {"": lambda data: data, ".gz": gzip.compress, ".zst": lambda data: pa.compress(data, "zstd").to_pybytes()}
    (tmp_path / (name + packing)).write_bytes(pack[packing](content))
    assert [prompt for _, prompt, _ in good(tmp_path / (name + packing))] == [RED, GREEN]


def test_packed_files_that_are_damaged_or_something_else(tmp_path):
    whole = gzip.compress(lines(*({"id": f"v{n}", "prompt": RED} for n in range(2000))))
    (tmp_path / "m.jsonl.gz").write_bytes(whole[:-100])
    assert "is damaged: it does not unpack as gzip" in refused(tmp_path / "m.jsonl.gz")
    (tmp_path / "m.jsonl.gz").write_bytes(lines(A))
    assert "does not unpack as gzip" in refused(tmp_path / "m.jsonl.gz")
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(png()))
    assert "is named .csv.gz but holds a PNG picture; accepted: CSV" in refused(tmp_path / "m.csv.gz")
    (tmp_path / "m.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    assert "is named .parquet.gz; accepted" in refused(tmp_path / "m.parquet.gz")


def test_lines_of_text_are_prompts(tmp_path):
    (tmp_path / "m.txt").write_bytes(b"a red circle\n" + b"\xff\n" + b"a red circle\n")
    told = refused(tmp_path / "m.txt")
    assert "m.txt row 2: is not UTF-8" in told and "row 3: id: is missing, and the row asks for the same video" in told


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (lines(A, B), [RED, GREEN]), (f'"id",Prompt\na,{RED}\n'.encode().replace(b"Prompt", b"prompt"), [RED]),
        (f"prompt\r\n{RED}\r\n".encode(), [RED]), (f"{RED}\n{GREEN}\n".encode(), [RED, GREEN]),
        (gzip.compress(lines(C)), [BLUE]),
    ],
)  # fmt: skip
def test_standard_input_says_what_it_is(monkeypatch, content, prompts):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    sources.standard_input.cache_clear()
    assert [prompt for _, prompt, _ in good("-")] == prompts
    assert [prompt for _, prompt, _ in good("-")] == prompts  # as a second look needs it
    sources.standard_input.cache_clear()


def test_standard_input_with_nothing_in_it(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    sources.standard_input.cache_clear()
    assert refused("-") == "-: is empty: a manifest has at least one row"
    sources.standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"Id;Prompt\na;{RED}\n".encode())))
    assert "the columns" in refused("-")
    sources.standard_input.cache_clear()


# Several


def test_several_a_pattern_and_a_folder_give_the_same_rows(tmp_path):
    for name, row in (("1", A), ("2", B), ("3", C)):
        (tmp_path / f"part-{name}.jsonl").write_bytes(lines(row))
    (tmp_path / "part-4.jsonl").write_bytes(b"")  # as Spark leaves them
    (tmp_path / "_SUCCESS").write_bytes(b"")
    assert good(*sorted(tmp_path.glob("part-[123].jsonl"))) == ABC
    assert good(tmp_path / "part-*.jsonl") == ABC == good(tmp_path)
    assert good(tmp_path, sample=2) == [each for each in ABC if each in good(tmp_path, sample=2)]
    assert good(tmp_path, limit=2) == ABC[:2]
    assert "matches no file" in refused(tmp_path / "*.csv")


def test_an_id_in_two_manifests_is_told_with_both(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(lines(A, B))
    (tmp_path / "y.jsonl").write_bytes(lines(C, B))
    told = refused(tmp_path / "x.jsonl", tmp_path / "y.jsonl")
    assert told == (
        f"{tmp_path}/y.jsonl row 2: id: 'b' is the id of {tmp_path}/x.jsonl row 2 too; accepted: an id of its own"
    )


def test_media_lie_beside_the_manifest_that_names_them(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "start.png").write_bytes(png() if folder == "x" else b"none")
        (tmp_path / folder / "m.jsonl").write_bytes(lines({"id": folder, "prompt": RED, "image": "start.png"}))
    told = refused(tmp_path / "x" / "m.jsonl", tmp_path / "y" / "m.jsonl")
    assert "y/m.jsonl row 1: image: 'start.png'" in told and "x/m.jsonl" not in told


def test_a_folder_of_several_kinds_or_of_nothing(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    assert "is a folder without a table, a picture or a video" in refused(tmp_path)
    (tmp_path / "m.jsonl").write_bytes(lines(A))
    (tmp_path / "m.csv").write_text("prompt\nx\n")
    assert "holds CSV and JSON Lines; accepted: one of them" in refused(tmp_path)


def test_folders_and_patterns_at_urls():
    memory = fsspec.filesystem("memory")
    memory.pipe("/night/a.jsonl", lines(A))
    memory.pipe("/night/deep/b.jsonl", lines(B))
    assert good("memory://night/") == ABC[:2]
    assert good("memory://night/*.jsonl") == ABC[:1]
    assert "nothing can be listed" in refused("http://127.0.0.1:9/night/")


def test_partitions_of_parquet(tmp_path):
    for team, row in (("a", A), ("b", B), ("__HIVE_DEFAULT_PARTITION__", C)):
        folder = tmp_path / f"team={team}" / "steps=4"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), folder / "part-0.parquet")
    got = checked(Given(str(tmp_path)))
    assert got.problems == [] and {request.steps for request in got.requests} == {4}
    assert sorted((request.id, *request.labels.items()) for request in got.requests) == [
        ("a", ("team", "a")), ("b", ("team", "b")), ("c",),
    ]  # fmt: skip
    (tmp_path / "seed=x").mkdir()
    pq.write_table(pa.Table.from_pylist([A]), tmp_path / "seed=x" / "part-0.parquet")
    assert "seed=x/part-0.parquet row 1: seed: got 'x'; accepted: a whole number" in refused(tmp_path)


# What other programs write


def test_ids_that_are_numbers_and_cells_that_are_empty(tmp_path):
    frame = pd.DataFrame(
        {"id": [7, None], "prompt": [RED, GREEN], "seed": [1, None], "labels": [{"x": float("nan")}, None]}
    )
    frame.to_parquet(tmp_path / "m.parquet")
    got = checked(Given(str(tmp_path / "m.parquet")))
    assert got.problems == [] and got.requests[0].id == "7" and got.requests[0].labels == {}
    (tmp_path / "m.jsonl").write_text(f'{{"id": 7, "prompt": "{RED}", "seed": NaN}}\n{{"id": "7", "prompt": "x"}}\n')
    assert "row 2: id: '7' is the id of row 1 too" in refused(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text(f'{{"id": -7, "prompt": "{RED}"}}\n{{"id": true, "prompt": "{RED}"}}\n')
    assert refused(tmp_path / "m.jsonl").count("accepted: 1 to 128 letters") == 2


def test_line_ends_of_windows_in_json(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(lines({"id": "a", "prompt": "a red\r\ncircle"}))
    assert good(tmp_path / "m.jsonl") == [("a", "a red\ncircle", {})]
    (tmp_path / "m.jsonl").write_bytes(lines({"id": "a", "prompt": "a red\rcircle"}))
    assert "holds the control character U+000D at character 6" in refused(tmp_path / "m.jsonl")


def test_blank_rows_and_columns_of_spreadsheets(tmp_path):
    text = f",,,\n,id,prompt,,\n0,a,{RED},,\n , ,\t,,\n1,b,{GREEN},,,,\n"
    (tmp_path / "m.csv").write_text("\ufeff" + text)
    assert good(tmp_path / "m.csv") == ABC[:2]
    (tmp_path / "m.csv").write_text(f"id,prompt,\na,{RED},x\nb,{GREEN}\nc,{BLUE},,y\n")
    told = refused(tmp_path / "m.csv").splitlines()
    assert told[0].endswith("row 2: got 'x' in column 3, which has no name; accepted: a name in the header")
    assert "row 3: has 2 cells; accepted: 3" in told[1] and "row 4: has 4 cells; accepted: 3" in told[2]


def test_fields_that_no_row_has(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(
        lines(A | {"team": "x", "take": 3, "seed": 1, "labels": {"k": "v"}, "none": None})
    )
    assert "row 1: team: is no known field" in refused(tmp_path / "m.jsonl")
    assert good(tmp_path / "m.jsonl", extra="ignore") == [("a", RED, {"k": "v"})]
    assert good(tmp_path / "m.jsonl", extra="labels") == [("a", RED, {"k": "v", "team": "x", "take": "3"})]
    (tmp_path / "m.jsonl").write_bytes(lines(A | {"team": [1]}, B | {"k": "w", "labels": {"k": "v"}}))
    told = refused(tmp_path / "m.jsonl", extra="labels")
    assert "row 1: labels.team: got a list" in told and "row 2: k: is given in labels too" in told


def test_batch_files_of_openai(tmp_path):
    body = {"model": "tiny-magi", "prompt": RED, "seconds": "2", "size": "64x64", "n": 1, "metadata": {"team": "x"}}
    asked = {"custom_id": "request-1", "method": "POST", "url": "/v1/videos", "body": body}
    (tmp_path / "m.jsonl").write_bytes(lines(asked))
    (request,) = checked(Given(str(tmp_path / "m.jsonl"))).requests
    assert (request.id, request.model, request.width, request.labels) == ("request-1", "tiny-magi", 64, {"team": "x"})
    chat = {"custom_id": "r", "body": {"messages": [{"role": "user", "content": RED}]}}
    size = asked | {"custom_id": "s", "body": body | {"size": "big"}}
    other = asked | {"custom_id": "t", "body": body | {"quality": "hd"}}
    (tmp_path / "m.jsonl").write_bytes(lines(chat, size, other))
    told = refused(tmp_path / "m.jsonl").splitlines()
    assert "row 1: body: is a request for text; accepted: an object with prompt" in told[0]
    assert "row 2: body.size: got 'big'; accepted: WIDTHxHEIGHT" in told[1] and "row 3: quality: is no known" in told[2]


def test_pictures_inside_a_table(tmp_path):
    """As the datasets library writes them, in Parquet and as it saves them."""
    table = pa.table(
        {"image": [{"bytes": png(), "path": "cat.png"}, {"bytes": None, "path": "start.png"}], "text": [RED, GREEN]}
    )
    (tmp_path / "start.png").write_bytes(png())
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    given = Given(str(tmp_path / "train-00000-of-00001.parquet"))
    got = checked(given)
    assert got.problems == [] and len({request.media_sha256 for request in got.requests}) == 1
    assert [request.shots[0].prompt for request in got.requests] == [RED, GREEN]
    assert got.requests[0].image == next(iter(given.embedded.files.values()))
    assert [request.id for request in checked(Given(str(given.requests))).requests] == [
        each.id for each in got.requests
    ]

    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    (saved / "state.json").write_text("{}")
    for name in ("data-00000-of-00001.arrow", "cache-1.arrow"):
        with pa.OSFile(str(saved / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.slice(0, 1))
    again = checked(Given(str(tmp_path / "saved")))
    assert again.problems == [] and [request.id for request in again.requests] == [got.requests[0].id]
    (saved / "data-00000-of-00001.arrow").write_bytes(b"\xff\xff\xff\xff" + b"\x10\0\0\0" + b"x" * 40)
    assert "is a damaged or incomplete Arrow file" in refused(tmp_path / "saved")
    pq.write_table(table.set_column(0, "image", [[{"bytes": b"none"}, {"bytes": png()}]]), tmp_path / "m.parquet")
    assert "row 1: image: 'sha256-" in refused(tmp_path / "m.parquet")


def test_folders_of_pictures(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "set" / f"{name}.png").write_bytes(png())
        (tmp_path / "set" / f"{name}.txt").write_text(f"{RED} {name}\n")
    got = checked(Given(str(tmp_path / "set") + "/"))
    assert got.problems == [] and [request.id for request in got.requests] == ["cat", "dog"]
    assert got.requests[1].image == str(tmp_path / "set" / "dog.png")
    (tmp_path / "set" / "dog.txt").unlink()
    assert refused(tmp_path / "set").endswith("set row 2: prompt: dog.png has no caption beside it; accepted: dog.txt")

    rows = [{"file_name": "cat.png", "text": RED, "id": "x"}, {"file_name": "dog.png", "text": GREEN}]
    (tmp_path / "set" / "metadata.jsonl").write_bytes(lines(*rows))
    assert good(tmp_path / "set")[0] == ("x", RED, {})
    (tmp_path / "set" / "metadata.jsonl").write_bytes(
        lines({"file_name": "cat.doc", "text": RED}, {"file_name": "none.png", "text": RED})
    )
    told = refused(tmp_path / "set")
    assert "row 1: file_name: got 'cat.doc'; accepted: a picture" in told and "row 2: image: 'none.png'" in told
    (tmp_path / "set" / "metadata.jsonl").unlink()
    (tmp_path / "set" / "metadata.csv").write_text(f"file_name,text\ncat.png,{RED}\n")
    assert [prompt for _, prompt, _ in good(tmp_path / "set")] == [RED]


def test_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "start.png").write_bytes(png())
    (tmp_path / "m.jsonl").write_bytes(lines(A | {"image": "~/start.png"}))
    assert good("~/m.jsonl") == good("~/*.jsonl") == ABC[:1]
    assert "row 1: model: " in refused("~/m.jsonl", values={"model": "~/none"})
