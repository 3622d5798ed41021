"""Manifests that take much to read, and manifests of which nothing is right: told, in little memory and time."""

import gzip
import json
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowcache import api
from flowcache.inputs import lines, parquet
from flowcache.inputs.schema import RowDefaults
from tests.hostile import bombs
from tests.hostile.memory import growing_by_less_than

MIB = 1 << 20
PROMPT = "a red circle moving right on a blue background"


def told(path) -> list[str]:
    """What is said of a manifest of which nothing is good."""
    with growing_by_less_than(1000 * MIB):
        good, problems, _, _ = api.check(str(path), RowDefaults())
    assert good == [] and problems and len(str(problems)) < 500_000
    return [f"{problem.row} {problem.field} {problem.message}" for problem in problems]


def test_few_bytes_of_parquet_that_unpack_to_gigabytes(tmp_path):
    bombs.wide_parquet(tmp_path / "m.parquet", rows=300_000, text=20_000)
    assert (tmp_path / "m.parquet").stat().st_size < 4000
    with growing_by_less_than(300 * MIB):
        found = told(tmp_path / "m.parquet")
    assert found[0].startswith("1 prompt has 20,000 characters")
    assert any("holds more than 2,048 MiB in its cells (after row 1" in one for one in found)


def test_rows_of_parquet_too_large_to_be_looked_at(tmp_path):
    bombs.long_parquet(tmp_path / "m.parquet", rows=8)
    with growing_by_less_than(100 * MIB):
        assert told(tmp_path / "m.parquet") == ["None  needs more than 1,024 MiB of memory to be read"]
    bombs.long_parquet(tmp_path / "m.parquet", size=20 * MIB, rows=3)
    assert told(tmp_path / "m.parquet") == [f"{number}  holds more than 16 MiB" for number in (1, 2, 3)]


def test_columns_and_rows_without_number(tmp_path, monkeypatch):
    pq.write_table(pa.table({f"c{number}": [1] for number in range(1001)}), tmp_path / "m.parquet")
    assert told(tmp_path / "m.parquet") == ["None  has 1,001 columns; accepted: at most 1,000"]
    (tmp_path / "m.csv").write_text(",".join(f"c{number}" for number in range(200_000)) + "\n1\n")
    assert told(tmp_path / "m.csv") == ["1  has 200,000 columns; accepted: at most 1,000"]
    (tmp_path / "m.csv").write_text("id,prompt\na" + "," * 2_000_000 + "b\n")
    assert told(tmp_path / "m.csv") == ["2  has 2000001 cells; accepted: 2, as in the header"]


def test_values_of_parquet_that_are_none_of_json(tmp_path):
    """Also where they stand for names."""
    column = pa.array([[(b"\xff", 1)], [(None, 2)]][:1], pa.map_(pa.binary(), pa.int32()))
    when = pa.array([1], pa.timestamp("ns", "Europe/Berlin"))
    pq.write_table(pa.table({"prompt": [PROMPT], "labels": column, "seed": when}), tmp_path / "m.parquet")
    (first, *_) = told(tmp_path / "m.parquet")
    assert first.startswith("1 ") and "that is no text" in first


@pytest.mark.parametrize(
    ("name", "begin", "size", "says"),
    [
        ("m.csv", b"id,prompt\na,", 2_000_000_000, "2  is longer than 16 MiB"),
        ("m.csv", b'id,prompt\na,"', 100_000_000, "2  is longer than 16 MiB"),
        ("m.jsonl", b'{"prompt": "', 500_000_000, "1  is longer than 16 MiB"),
        ("m.jsonl", b'{"prompt": "', 2_147_483_649, "None  is larger than 2,048 MiB"),
    ],
)
def test_lines_of_gigabytes(tmp_path, name, begin, size, says):
    bombs.line_of(tmp_path / name, begin, size)
    with growing_by_less_than(100 * MIB):
        assert says in told(tmp_path / name)


WIDE = {
    "empty objects": '{"labels": [' + "{}," * 5_000_000 + "{}]}",
    "names": "{" + ",".join(f'"k{number}":0' for number in range(1_200_000)) + "}",
    "shots": '{"shots": [' + '{"prompt":"a"},' * 1_000_000 + '{"prompt":"a"}]}',
    "strangers in shots": '{"shots": [{' + ",".join(f'"k{number}":0' for number in range(50_000)) + "}]}",
    "labels": json.dumps({"prompt": "a red circle", "labels": dict.fromkeys(map(str, range(300_000)), 1)}),
}
DEEP = ["[" * 1_000_000, '{"labels":' * 100_000, '{"labels":' + "[" * 400 + "]" * 400 + "}",
        '{"policy":' + '{"kv":' * 300 + "1" + "}" * 300 + "}"]  # fmt: skip


@pytest.mark.parametrize("name", WIDE)
def test_rows_of_a_million_entries(tmp_path, name):
    assert len(WIDE[name]) < lines.LINE_LIMIT
    (tmp_path / "m.jsonl").write_text(WIDE[name] + "\n")
    assert told(tmp_path / "m.jsonl") == ["1  has more than 10,000 entries in all its lists and objects together"]


@pytest.mark.parametrize("row", DEEP)
def test_rows_that_are_deep(tmp_path, row):
    (tmp_path / "m.jsonl").write_text('{"prompt": "\n' + row + "\n")
    assert any("deep" in one or "broken JSON" in one or "nested" in one for one in told(tmp_path / "m.jsonl")[1:])


def test_archives_are_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.csv", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(1 << 28))
    assert "holds a ZIP archive or spreadsheet" in told(tmp_path / "m.csv")[0]
    (tmp_path / "m.jsonl").write_bytes(gzip.compress(bytes(1 << 28)))
    assert "holds gzip-compressed data" in told(tmp_path / "m.jsonl")[0]
    (tmp_path / "m.parquet").write_bytes(b"ARROW1\0\0" + bytes(100))
    assert "holds an Arrow file" in told(tmp_path / "m.parquet")[0]
    (tmp_path / "m.xlsx").write_bytes(b"PK\3\4")
    assert "is named .xlsx" in told(tmp_path / "m.xlsx")[0]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_few_bytes_that_unpack_to_many(tmp_path, monkeypatch, packing):
    whole = b'{"prompt": "' + b"x" * (64 * MIB)
    packed = gzip.compress(whole) if packing == ".gz" else pa.compress(whole, "zstd").to_pybytes()
    (tmp_path / f"m.jsonl{packing}").write_bytes(packed)
    monkeypatch.setattr("flowcache.inputs.readers.FILE_LIMIT", 32 * MIB)
    with growing_by_less_than(100 * MIB):
        assert told(tmp_path / f"m.jsonl{packing}") == ["None  unpacks to more than 32 MiB"]


def test_an_answer_of_a_child_that_was_taken_over_runs_no_code():
    import io
    import os
    import pickle

    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system is no value"):
        parquet._Plain(io.BytesIO(pickle.dumps(os.system))).load()


# A million bad rows

FAULTS = {
    "unknown key": lambda number: {"id": f"v{number}", "prompt": PROMPT, "sede": number},
    "length": lambda number: {"id": f"v{number}", "prompt": PROMPT, "frames": 50},
    "no prompt": lambda number: {"id": f"v{number}", "seed": number},
    "same rows": lambda number: {"prompt": PROMPT},
    "no picture": lambda number: {"id": f"v{number}", "prompt": PROMPT, "image": f"none-{number}.png"},
}


def write(path, kind: str, count: int) -> None:
    rows = map(FAULTS[kind], range(count))
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    elif path.suffix == ".csv":
        with path.open("w") as file:
            file.write(",".join(FAULTS[kind](0)) + "\n")
            file.writelines(",".join(map(str, row.values())) + "\n" for row in rows)
    else:
        writer = None
        for start in range(0, count, 100_000):
            batch = [FAULTS[kind](number) for number in range(start, min(start + 100_000, count))]
            table = pa.Table.from_pylist(batch)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        writer.close()


def bad_rows(path, kind: str, count: int) -> float:
    """CPU seconds of this process; what is told is the first thousand, and a number."""
    write(path, kind, count)
    begin = time.process_time()
    with growing_by_less_than(600 * MIB):
        good, problems, _, _ = api.check(str(path), RowDefaults())
    took = time.process_time() - begin
    assert len(good) == (kind == "same rows") and sum(problem.rows for problem in problems) + len(good) == count
    assert len(problems) == 1001 and "the first 1,000 problems are told one by one" in problems[-1].message
    return took


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_thousands_of_bad_rows_are_told_and_counted(tmp_path, suffix):
    bad_rows(tmp_path / f"m.{suffix}", "unknown key", 5000)


def test_rows_after_a_thousand_faults_are_good_once(tmp_path):
    rows = [{"prompt": PROMPT, "seed": seed} for seed in (1, 2, 1, True, 2)] + [{"prompt": PROMPT, "id": "a"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, [{"sede": 1}] * 1200 + rows)))
    good, problems, _, _ = api.check(str(tmp_path / "m.jsonl"), RowDefaults())
    assert [(request.seed, request.id == "a") for request in good][:2] == [(1, False), (2, False)] and len(good) == 3
    assert sum(problem.rows for problem in problems[-1:]) + 500 == 1203


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "no picture"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_million_bad_rows_are_told_within_a_minute(tmp_path, kind, suffix):
    took = bad_rows(tmp_path / f"m.{suffix}", kind, 1_000_000)
    print(f"{kind}, {suffix}: {took:.0f} s")
    assert took < 60
