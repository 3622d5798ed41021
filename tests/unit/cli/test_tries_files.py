"""What people have as a manifest, made by the programs that they have it from, and planned by the real command line."""

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

CIRCLE, SQUARE = "a red circle moving right", "a blue square"
FRAME = pd.DataFrame({"id": ["a", "b"], "prompt": [CIRCLE, SQUARE]})
Make = Callable[[Path], object]


def text(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> str:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return make


def jsonl(name: str, *rows: dict) -> Make:
    return text(name, "".join(json.dumps(row) + "\n" for row in rows))


def by_pandas(name: str, how: str, frame: pd.DataFrame = FRAME, **options) -> Make:
    def make(folder: Path) -> str:
        getattr(frame, how)(folder / name, **options)
        return name

    return make


def zstd(name: str, content: bytes) -> Make:
    def make(folder: Path) -> str:
        with pa.CompressedOutputStream(str(folder / name), "zstd") as out:
            out.write(content)
        return name

    return make


def table(name: str, found: pa.Table, **options) -> Make:
    def make(folder: Path) -> str:
        pq.write_table(found, folder / name, **options)
        return name

    return make


def picture(path: Path, colour: str = "red", **save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), colour).save(path, **save)
    return path


LINES = "".join(json.dumps(row) + "\n" for row in FRAME.to_dict("records"))
CSV = f"id,prompt\na,{CIRCLE}\nb,{SQUARE}\n"
CATEGORIES = FRAME.assign(prompt=FRAME["prompt"].astype("category"))
ODD_INDEX = FRAME.set_index(pd.Index([7, 9]))
TABLE = pa.Table.from_pandas(FRAME)
SAME: dict[str, Make] = {
    "JSON Lines by pandas": by_pandas("m.jsonl", "to_json", orient="records", lines=True),
    "JSON Lines by hand": text("m.jsonl", LINES),
    "JSON Lines without a last newline": text("m.jsonl", LINES.rstrip()),
    "JSON Lines of Windows": text("m.jsonl", LINES.replace("\n", "\r\n")),
    "JSON Lines with a byte order mark": text("m.jsonl", "\ufeff" + LINES),
    "JSON Lines with blank lines": text("m.ndjson", LINES.replace("\n", "\n\n  \n")),
    "upper case ending": text("M.JSONL", LINES),
    ".jsonl.gz by pandas": by_pandas("m.jsonl.gz", "to_json", orient="records", lines=True),
    ".jsonl.gz by gzip, two members": text(
        "m.jsonl.gz", b"".join(gzip.compress(f"{x}\n".encode()) for x in LINES.splitlines())
    ),
    ".jsonl.zst": zstd("m.jsonl.zst", LINES.encode()),
    ".ndjson.gz": text("m.ndjson.gz", gzip.compress(LINES.encode())),
    "CSV by pandas": by_pandas("m.csv", "to_csv", index=False),
    "CSV by pandas with its index": by_pandas("m.csv", "to_csv"),
    "CSV by pandas, all quoted": by_pandas("m.csv", "to_csv", index=False, quoting=1),
    "CSV for Excel": by_pandas("m.csv", "to_csv", index=False, encoding="utf-8-sig", lineterminator="\r\n"),
    "CSV from Excel, blank rows and columns": text(
        "m.csv", f",,,\r\nid,prompt,,\r\na,{CIRCLE},,\r\n,,,\r\nb,{SQUARE},,\r\n,,,\r\n"
    ),
    ".csv.gz by pandas": by_pandas("m.csv.gz", "to_csv", index=False),
    ".csv.zst": zstd("m.csv.zst", CSV.encode()),
    "CSV with spaces": text("m.csv", f"id , prompt\na, {CIRCLE} \nb ,{SQUARE}\n"),
    "Parquet by pandas": by_pandas("m.parquet", "to_parquet"),
    "Parquet by pandas with an index": by_pandas("m.parquet", "to_parquet", ODD_INDEX),
    "Parquet of categories": by_pandas("m.parquet", "to_parquet", CATEGORIES),
    "Parquet, brotli": table("m.parquet", TABLE, compression="brotli"),
    "Parquet, small row groups": table("m.parquet", TABLE, row_group_size=1, version="1.0"),
    "Parquet of large strings": table(
        "m.parquet", TABLE.cast(pa.schema([("id", pa.large_string()), ("prompt", pa.large_string())]))
    ),
    "Arrow by pandas (Feather)": by_pandas("m.arrow", "to_feather"),
    "Arrow, uncompressed": lambda folder: (
        pyarrow.feather.write_feather(FRAME, folder / "m.arrow", "uncompressed"),
        "m.arrow",
    )[1],
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows_however_they_are_written(tried, tmp_path, name):
    found = tried(SAME[name](tmp_path))
    assert found.code == 0, found.out
    assert (found.ids, found.prompts) == (["a", "b"], [CIRCLE, SQUARE]) and found.states == {"a": "new", "b": "new"}


def ids(*wanted: object) -> dict:
    return {"ids": list(wanted)}


GAPS = pd.DataFrame({"id": [1, None, 3], "prompt": [CIRCLE, SQUARE, "x"], "steps": [None, 4, 2], "image": [None] * 3})
ROWS: dict[str, tuple[Make, dict]] = {
    "whole numbers as ids": (jsonl("m.jsonl", {"id": 7, "prompt": "x"}, {"id": 0, "prompt": "y"}), ids("7", "0")),
    "numbers as ids in CSV keep their zeros": (text("m.csv", "id,prompt\n007,x\n"), ids("007")),
    "whole numbers as ids in Parquet": (by_pandas("m.parquet", "to_parquet", FRAME.assign(id=[1, 2])), ids("1", "2")),
    "float ids, as pandas has a gap": (by_pandas("m.parquet", "to_parquet", GAPS), {"prompts": [CIRCLE, SQUARE, "x"]}),
    "NaN in CSV by pandas": (
        by_pandas("m.csv", "to_csv", GAPS, index=False, na_rep="NaN"),
        {"prompts": [CIRCLE, SQUARE, "x"]},
    ),
    "gaps in CSV by pandas": (by_pandas("m.csv", "to_csv", GAPS, index=False), {"prompts": [CIRCLE, SQUARE, "x"]}),
    "NaN in JSON": (text("m.jsonl", '{"id": "a", "prompt": "x", "seed": NaN, "labels": {"k": NaN}}\n'), ids("a")),
    "null in JSON": (text("m.jsonl", '{"id": "a", "prompt": "x", "seed": null, "image": null}\n'), ids("a")),
    "pandas writes null": (
        by_pandas("m.jsonl", "to_json", GAPS, orient="records", lines=True),
        {"prompts": [CIRCLE, SQUARE, "x"]},
    ),
    "64.0 for 64": (jsonl("m.jsonl", {"id": "a", "prompt": "x", "width": 64.0, "height": 64.0}), ids("a")),
    "lines of Windows in prompts": (jsonl("m.jsonl", {"prompt": "one\r\ntwo"}), {"prompts": ["one\ntwo"]}),
    "lines of Windows in prompts of CSV": (text("m.csv", 'prompt\r\n"one\r\ntwo"\r\n'), {"prompts": ["one\ntwo"]}),
    "other languages and emoji": (
        jsonl("m.jsonl", {"prompt": "ein Kätzchen 🐈 猫"}),
        {"prompts": ["ein Kätzchen 🐈 猫"]},
    ),
    "a text of prompts": (text("m.txt", f"{CIRCLE}\r\n\r\n  {SQUARE}  \n"), {"prompts": [CIRCLE, SQUARE]}),
    "a packed text of prompts": (
        text("m.txt.gz", gzip.compress(f"{CIRCLE}\n{SQUARE}".encode())),
        {"prompts": [CIRCLE, SQUARE]},
    ),
    "a data set's text": (jsonl("m.jsonl", {"text": "x"}, {"caption": "y"}), {"prompts": ["x", "y"]}),
    "labels as an object in CSV": (
        text("m.csv", 'id,prompt,labels\na,x,"{""team"": 1}"\n'),
        {"labels": [{"team": "1"}]},
    ),
    "labels in columns": (text("m.csv", "id,prompt,label.team\na,x,red\n"), {"labels": [{"team": "red"}]}),
    "labels as a map in Parquet": (
        table(
            "m.parquet",
            pa.table({"prompt": ["x"], "labels": pa.array([[("team", "red")]], pa.map_(pa.string(), pa.string()))}),
        ),
        {"labels": [{"team": "red"}]},
    ),
    "shots as a list of structs in Parquet": (
        table("m.parquet", pa.table({"id": ["a"], "shots": [[{"prompt": "x"}, {"prompt": "y"}]]})),
        {"prompts": ["x"]},
    ),
    "shots as JSON in CSV": (text("m.csv", 'id,shots\na,"[{""prompt"": ""x""}]"\n'), {"prompts": ["x"]}),
    "decimals in Parquet": (
        table("m.parquet", pa.table({"prompt": ["x"], "guidance": pa.array([Decimal("3.00")])})),
        {"prompts": ["x"]},
    ),
    "a batch file of OpenAI": (
        jsonl(
            "m.jsonl",
            {
                "custom_id": "r-1",
                "method": "POST",
                "url": "/v1/videos",
                "body": {"model": "tiny-skyreels", "prompt": "x", "size": "64x64", "seconds": "1"},
            },
        ),
        ids("r-1"),
    ),
    "a fraction of frames": (
        jsonl("m.jsonl", {"prompt": "x", "fps": 23.976}, {"prompt": "x", "fps": "30000/1001"}),
        {"fps": ["24000/1001", "30000/1001"]},
    ),
    "a column of fractions in CSV": (text("m.csv", "prompt,fps\nx,24000/1001\nx,25\n"), {"fps": ["24000/1001", 25]}),
    "a column of floats in Parquet": (
        by_pandas("m.parquet", "to_parquet", FRAME.assign(fps=[29.97, 24.0])),
        {"fps": ["30000/1001", 24]},
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_mean_what_people_mean(tried, tmp_path, name):
    make, wanted = ROWS[name]
    found = tried(make(tmp_path))
    assert found.code == wanted.get("code", 0), found.out
    assert wanted.get("says", "") in found.out
    for what in wanted.keys() - {"code", "says"}:
        told = getattr(found, what) if what in ("ids", "prompts") else found.each(what)
        assert told == wanted[what]


REFUSED: dict[str, tuple[Make, str]] = {
    "an empty file": (text("m.jsonl", ""), "m.jsonl: is empty: a manifest has at least one row"),
    "blank lines alone": (text("m.jsonl", "\n\n"), "m.jsonl: is empty"),
    "a header alone": (text("m.csv", "id,prompt\n"), "m.csv: has no rows"),
    "an empty table": (by_pandas("m.parquet", "to_parquet", FRAME[:0]), "m.parquet: has no rows"),
    "a JSON array": (
        text("m.jsonl", json.dumps([{"prompt": "x"}], indent=1)),
        "holds JSON over many lines; accepted: one object a line",
    ),
    "one JSON": (text("m.json", "[]"), "m.json: is named .json; accepted: .jsonl"),
    "YAML": (text("m.yaml", "prompt: x"), "m.yaml: is named .yaml; accepted: .jsonl"),
    "no ending": (text("manifest", LINES), "manifest: is named without an ending; accepted: .jsonl"),
    "semicolons": (text("m.csv", "id;prompt\na;x\n"), "the columns are separated by ';'; accepted: commas"),
    "tabs": (
        by_pandas("m.csv", "to_csv", sep="\t", index=False),
        "the columns are separated by '\\\\t'; accepted: commas",
    ),
    "UTF-16": (by_pandas("m.csv", "to_csv", encoding="utf-16"), "m.csv: is named .csv but holds UTF-16 text"),
    "a spreadsheet under a wrong name": (text("m.csv", b"PK\x03\x04 and so on"), "holds a ZIP archive or spreadsheet"),
    "CSV named as Parquet": (text("m.parquet", CSV), "m.parquet: is named .parquet but holds text"),
    "not packed": (text("m.jsonl.gz", LINES), "m.jsonl.gz: is damaged: it does not unpack as gzip"),
    "cut short": (text("m.jsonl.gz", gzip.compress(LINES.encode() * 99)[:-30]), "m.jsonl.gz: is damaged"),
    "a file that is not there": (lambda folder: "none.jsonl", "none.jsonl: does not exist"),
    "an empty folder": (
        lambda folder: folder.joinpath("e").mkdir() or "e",
        "e: is a folder without a table, a picture or a video",
    ),
    "a pattern for nothing": (lambda folder: "*.jsonl", "*.jsonl: matches no file"),
    "no prompt": (jsonl("m.jsonl", {"id": "a"}), "m.jsonl row 1: prompt: is missing"),
    "an empty prompt": (jsonl("m.jsonl", {"id": "a", "prompt": ""}), "m.jsonl row 1: prompt: is blank"),
    "a blank prompt": (text("m.csv", "id,prompt\na,   \n"), "m.csv row 2: prompt: is missing"),
    "a number as prompt": (jsonl("m.jsonl", {"prompt": 7}), "m.jsonl row 1: prompt: got 7"),
    "an id that is a path": (
        jsonl("m.jsonl", {"id": "../a", "prompt": "x"}),
        "m.jsonl row 1: id: '../a' is no safe object key",
    ),
    "a negative id": (jsonl("m.jsonl", {"id": -1, "prompt": "x"}), "m.jsonl row 1: id: '-1' is no safe object key"),
    "an id twice": (
        jsonl("m.jsonl", {"id": 1, "prompt": "x"}, {"id": "1", "prompt": "y"}),
        "row 2: id: '1' is the id of row 1 too",
    ),
    "true as id": (jsonl("m.jsonl", {"id": True, "prompt": "x"}), "m.jsonl row 1: id: got true"),
    "a rate out of range": (
        jsonl("m.jsonl", {"prompt": "x", "fps": 240}),
        "m.jsonl row 1: fps: got 240; accepted: a whole number from 1 to 120, or a fraction in that range",
    ),
    "a chat as batch file": (
        jsonl("m.jsonl", {"custom_id": "a", "body": {"messages": []}}),
        "m.jsonl row 1: body: is a request for text",
    ),
    "a list of prompts": (jsonl("m.jsonl", {"prompt": ["x", "y"]}), "m.jsonl row 1: prompt: got a list of 2 entries"),
    "a picture that is not there": (
        jsonl("m.jsonl", {"prompt": "x", "image": "a.png"}),
        "m.jsonl row 1: image: 'a.png' does not exist",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_with_file_row_and_field(tried, tmp_path, name):
    make, says = REFUSED[name]
    found = tried(make(tmp_path))
    assert found.code == 2 and says in found.out, found.out
    assert "Traceback" not in found.err and not (tmp_path / "out").exists()


def partitions(folder: Path) -> str:
    many = FRAME.assign(team=["red", "blue"], steps=[2, 4])
    many.to_parquet(folder / "set", partition_cols=["team", "steps"])
    (folder / "set/_SUCCESS").touch()
    return "set"


def spark(folder: Path) -> str:
    root = folder / "set"
    for number, (team, row) in enumerate(zip(["red", "__HIVE_DEFAULT_PARTITION__"], [[0], [1]], strict=True)):
        (root / f"team={team}").mkdir(parents=True)
        FRAME.iloc[row].to_parquet(root / f"team={team}/part-{number:05d}-4f.c000.snappy.parquet")
        (root / f"team={team}/.part-{number:05d}.crc").write_bytes(b"crc")
    (root / "_SUCCESS").touch()
    return "set"


def picture_folder(folder: Path, metadata: str) -> str:
    rows = pd.DataFrame({"file_name": ["a.png", "deep/b.jpg"], "text": [CIRCLE, SQUARE]})
    picture(folder / "set/a.png")
    picture(folder / "set/deep/b.jpg")
    if metadata.endswith("csv"):
        rows.to_csv(folder / "set" / metadata, index=False)
    elif metadata.endswith("jsonl"):
        rows.to_json(folder / "set" / metadata, orient="records", lines=True)
    else:
        rows.to_parquet(folder / "set" / metadata)
    return "set"


def captioned(folder: Path, crlf: bool = False) -> str:
    for name, caption in (("a.png", CIRCLE), ("deep/b.JPG", SQUARE)):
        picture(folder / "set" / name)
        end = "\r\n" if crlf else ""
        (folder / "set" / name).with_suffix(".txt").write_bytes(f"{caption}{end}".encode())
    return "set"


def structs(folder: Path) -> str:
    data = [{"bytes": picture(folder / f"{name}.png").read_bytes(), "path": f"{name}.png"} for name in "ab"]
    pq.write_table(pa.table({"image": data, "prompt": [CIRCLE, SQUARE]}), folder / "m.parquet")
    return "m.parquet"


FOLDERS: dict[str, tuple[Make, dict]] = {
    "partitions by pandas": (partitions, {"labels": [{"team": "blue"}, {"team": "red"}], "steps": [2, 4]}),
    "partitions as Spark writes them": (spark, {"labels": [{"team": "red"}, {}]}),
    "a folder of JSON Lines": (
        lambda folder: (
            jsonl("set/1.jsonl", {"prompt": CIRCLE})(folder),
            jsonl("set/2.jsonl", {"prompt": SQUARE})(folder),
            "set",
        )[2],
        {},
    ),
    **{
        f"an image folder with {name}": (lambda folder, name=name: picture_folder(folder, name), {"pictures": 2})
        for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet")
    },
    "pictures with captions beside them": (captioned, {"pictures": 2, "ids": ["a", "deep-b"]}),
    "captions of Windows": (lambda folder: captioned(folder, True), {"pictures": 2}),
    "pictures inside a table": (structs, {"pictures": 2}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_and_data_sets(tried, tmp_path, name):
    make, wanted = FOLDERS[name]
    found = tried(make(tmp_path))
    assert found.code == 0, found.out
    assert sorted(found.prompts) == sorted([CIRCLE, SQUARE])
    for field in ("labels", "steps"):
        assert sorted(found.each(field), key=str) == wanted.get(field, sorted(found.each(field), key=str))
    assert sum(bool(one) for one in found.each("image")) == wanted.get("pictures", 0)
    assert found.ids == wanted.get("ids", found.ids)


def test_a_picture_without_a_caption_is_named(tried, tmp_path):
    captioned(tmp_path)
    picture(tmp_path / "set/c.png")
    found = tried("set")
    assert found.code == 2 and "c.png has no caption beside it; accepted: c.txt" in found.out


def test_what_the_datasets_library_writes(tried, tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_pandas(FRAME)
    made.to_parquet(tmp_path / "m.parquet")
    made.to_csv(tmp_path / "m.csv")
    made.to_json(tmp_path / "m.jsonl")
    made.save_to_disk(tmp_path / "set")
    for name in ("m.parquet", "m.csv", "m.jsonl", "set"):
        assert tried(name).ids == ["a", "b"], name
    pictures = {"image": [str(picture(tmp_path / "a.png"))], "prompt": [CIRCLE]}
    features = datasets.Features({"image": datasets.Image(), "prompt": datasets.Value("string")})
    shown = datasets.Dataset.from_dict(pictures, features=features)
    shown.save_to_disk(tmp_path / "pictures")
    shown.to_parquet(tmp_path / "pictures.parquet")
    for name in ("pictures", "pictures.parquet"):
        found = tried(name)
        assert found.code == 0 and found.each("image")[0], found.out


def test_what_polars_and_duckdb_write(tried, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    duckdb.sql(f"copy (select 'a' as id, 'x' as prompt, 24 as fps) to '{tmp_path}/d.parquet'")
    duckdb.sql(f"copy (select 'a' as id, 'x' as prompt, 24 as fps) to '{tmp_path}/d.csv' (header)")
    assert tried("d.parquet").ids == tried("d.csv").ids == ["a"]
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": ["a", "b"], "prompt": [CIRCLE, SQUARE], "seed": [1, None]})
    frame.write_parquet(tmp_path / "p.parquet")
    frame.write_csv(tmp_path / "p.csv")
    frame.write_ndjson(tmp_path / "p.ndjson")
    frame.write_ipc(tmp_path / "p.arrow")
    for name in ("p.parquet", "p.csv", "p.ndjson", "p.arrow"):
        assert tried(name).ids == ["a", "b"], name


def test_what_excel_writes_is_read_from_its_csv_and_refused_as_a_workbook(tried, tmp_path):
    pytest.importorskip("openpyxl")
    FRAME.to_excel(tmp_path / "m.xlsx", index=False)
    found = tried("m.xlsx")
    assert found.code == 2 and "m.xlsx: is named .xlsx; accepted: .jsonl" in found.out
    pd.read_excel(tmp_path / "m.xlsx").to_csv(tmp_path / "m.csv", index=False)
    assert tried("m.csv").ids == ["a", "b"]


def test_numbers_of_numpy_in_tables(tried, tmp_path):
    frame = FRAME.assign(seed=np.array([1, 2], np.uint8), steps=np.array([2, 3], np.int16), guidance=np.float32([3, 4]))
    frame.to_parquet(tmp_path / "m.parquet")
    found = tried("m.parquet")
    assert (found.each("seed"), found.each("steps"), found.each("guidance")) == ([1, 2], [2, 3], [3.0, 4.0])
