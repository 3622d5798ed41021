"""Every kind of bad input with its message, which is also the table in docs/bad-input.md.

`python -m tests.unit.inputs.test_manifest` writes that table anew.
"""

import json
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.errors import InputError, MediaError, Problem
from flowcache.families.skyreels.published import NEGATIVE_PROMPT
from flowcache.inputs.adapt import Embedded, adapted
from flowcache.inputs.job import load_job
from flowcache.inputs.lines import Line
from flowcache.inputs.manifest import default_seed, validate
from flowcache.inputs.media import probe_media
from flowcache.inputs.readers import read_rows
from flowcache.inputs.schema import ACCEPTS, Row, RowDefaults, shown
from flowcache.inputs.segments import plan
from flowcache.inputs.told import Told
from flowcache.models.tensors import in_pth, in_safetensors
from flowcache.records import LATER, MediaInfo, ModelSpec, RenderRequest, Shot
from flowcache.storage.runs import spec_hash
from tests.given_models import rows
from tests.weights_files import BAD

ROOT = Path(__file__).parents[3]
DOC = ROOT / "docs" / "bad-input.md"

TINY = ModelSpec(
    "tiny-skyreels", "skyreels", "tiny", "digest", chunk=3, window=15, overlap=3, channels=16, fps=12, width=64,
    height=64, sizes=((64, 64), (96, 64)), frames=57, steps=30, guidance=3, max_steps=200,
    reuse={"slow": {}, "fast": {}}, vocabulary=("a", "red", "circle"),
)  # fmt: skip
REAL = ModelSpec("skyreels-v2", "skyreels", "real", "digest", chunk=5, window=25, overlap=5, channels=16)


def spec_of(name: str) -> ModelSpec:
    found = {spec.name: spec for spec in (TINY, REAL)}
    if name not in found:
        raise InputError([Problem("model", "", f"{name!r} is no model: give {', '.join(sorted(found))}")])
    return found[name]


def probe(url: str, kind: str, file: str) -> MediaInfo:
    if "missing" in url:
        raise MediaError("does not exist")
    return MediaInfo(f"/media/{url}", 64, 64, 24, 12.0, 3 / 12 if "short" in url else 23 / 12)


def opening(manifest: str):
    """As a run does, in this process."""
    return lambda url, kind, file: probe_media(url, kind, file or manifest)


def check(rows, file="night.jsonl", defaults=None, numbered=False):
    rows = rows if numbered else list(enumerate(rows, 1))
    return validate(starmap(Line, rows), file, spec_of, defaults or RowDefaults(), probe)


def one(row, **defaults):
    requests, problems, _ = check([row], defaults=RowDefaults(**defaults))
    assert problems == []
    return requests[0]


# What reads a file by its ending, where that is no manifest.
READERS = {
    ".yaml": load_job,
    ".safetensors": lambda file: in_safetensors(Path(file)),
    ".pth": lambda file: in_pth(Path(file)),
}


@dataclass(frozen=True)
class Case:
    """One kind of bad input. `where`: (row, field) of each problem expected, in order."""

    title: str
    written: str | bytes | list  # a list: rows of a JSON Lines file
    where: tuple
    file: str = "night.jsonl"
    said: str | None = None  # what the table shows as written, where that is too long or no text

    @property
    def content(self) -> bytes:
        if isinstance(self.written, list):
            return "".join(json.dumps(row) + "\n" for row in self.written).encode()
        return self.written.encode() if isinstance(self.written, str) else self.written

    def problems(self) -> list[Problem]:
        """What the user is told, the file lying in the current directory."""
        if self.written is not ABSENT:
            Path(self.file).write_bytes(self.content)
        if Path(self.file).suffix in READERS:
            with pytest.raises(InputError) as caught:
                READERS[Path(self.file).suffix](self.file)
            return caught.value.problems
        found, told = read_rows(self.file), Told()
        rows, problems = [*adapted(starmap(Line, found[0]), self.file, told, "refuse", Embedded())], found[1]
        problems += told.problems
        _, faults, _ = validate(rows, self.file, spec_of, RowDefaults(), opening(self.file))
        return problems + faults


ABSENT = b"absent"
PNG = (ROOT / "manifests" / "media" / "start.png").read_bytes()
PARQUET = (ROOT / "manifests" / "example.parquet").read_bytes()
P = {"prompt": "a red circle"}
OUTPUTS = {
    "an empty part": "s3://bucket//prefix",
    "a part that leads elsewhere": "s3://bucket/a/../b",
    "a version of one object": "s3://bucket/night?versionId=secret",
    "a fragment": "s3://bucket/night#secret",
    "credentials": "s3://key:secret/with/slashes@bucket/night",
    "a host's folder": "file://host/night",
    "one slash": "file:/night",
    "a drive": "C:\\night",
    "memory": "memory://night",
    "a scheme that is not served": "hdfs://host/night",
    "a space at its end": "s3://bucket/night ",
}
CASES = [
    Case("Unknown key, near a known one", [P | {"sede": 1}], ((1, "sede"),)),
    Case("Unknown key", [P | {"camera": "pan"}], ((1, "camera"),)),
    Case("Key given twice in one object", '{"prompt": "a red circle", "seed": 1, "seed": 2}\n', ((1, "seed"),)),
    Case("Duplicate ids", [P | {"id": "v1"}, P | {"id": "v1", "seed": 2}], ((2, "id"),)),
    Case("Ids that differ in case only", [P | {"id": "v1"}, P | {"id": "V1"}], ((2, "id"),)),
    Case("Same row twice, without ids", [P, P], ((2, "id"),)),
    Case("Id that leaves the folder", [P | {"id": "../x"}], ((1, "id"),)),
    Case("Id with a slash", [P | {"id": "a/b"}], ((1, "id"),)),
    Case("Id with a control character", [P | {"id": "a\x1b[31m"}], ((1, "id"),)),
    Case("Hidden or empty id", [P | {"id": ".x"}, P | {"id": ""}], ((1, "id"), (2, "id"))),
    Case("Impossible length", [P | {"frames": 50}], ((1, "frames"),)),
    Case("Impossible length of a continuing shot", [{"shots": [P | {"frames": 57}, P | {"frames": 57, "cut": False}]}],
         ((1, "shots[1].frames"),)),
    Case("Length of zero or less", [P | {"frames": 0}, P | {"seconds": -2}], ((1, "frames"), (2, "seconds"))),
    Case("Endless length", [P | {"frames": 10**9}, P | {"seconds": 86_400, "fps": 24}, P | {"seconds": 1e12}],
         ((1, "frames"), (2, "seconds"), (3, "seconds"))),
    Case("Both seconds and frames", [P | {"seconds": 2, "frames": 57}], ((1, "frames"),)),
    Case("Size that the model does not know", [P | {"width": 100, "height": 64}], ((1, "width, height"),)),
    Case("Size off the grid", [P | {"model": "skyreels-v2", "width": 950, "height": 540, "frames": 17}],
         ((1, "width"), (1, "height"))),
    Case("Size out of range", [P | {"model": "skyreels-v2", "width": 0, "height": 100_000, "frames": 17}],
         ((1, "width"), (1, "height"))),
    Case("Infinity", '{"prompt": "a red circle", "guidance": NaN, "seconds": Infinity}\n', ((1, "seconds"),)),
    Case("Negative number", [P | {"seed": -1}], ((1, "seed"),)),
    Case("Number out of range", [P | {"steps": 500, "fps": 1000, "priority": 1e6}],
         ((1, "fps"), (1, "priority"), (1, "steps"))),
    Case("Text for a number", [P | {"seed": "12"}], ((1, "seed"),)),
    Case("Boolean for a number", [P | {"steps": True}], ((1, "steps"),)),
    Case("Number for text", [{"prompt": 7}], ((1, "prompt"),)),
    Case("No prompt", [{"seed": 1}], ((1, "prompt"),)),
    Case("Blank prompt", [{"prompt": "  \n"}], ((1, "prompt"),)),
    Case("Prompt of a megabyte", [{"prompt": "red " * 262_144}], ((1, "prompt"),)),
    Case("Control character in a prompt", [{"prompt": "a red\x00 circle"}], ((1, "prompt"),)),
    Case("Half of a character pair", [P | {"labels": {"take": "\ud83d"}}], ((1, "labels.take"),)),
    Case("Prompt and shots", [P | {"shots": [P | {"frames": 57}]}], ((1, "prompt"),)),
    Case("No shots in shots", [{"shots": []}], ((1, "shots"),)),
    Case("First shot continues nothing", [{"shots": [P | {"cut": False}]}], ((1, "shots[0].cut"),)),
    Case("Unknown model", [P | {"model": "sora"}], ((1, "model"),)),
    Case("Unknown policy", [P | {"policy": "papr"}], ((1, "policy"),)),
    Case("Unknown preset", [P | {"policy": "paper:medium"}], ((1, "policy.preset"),)),
    Case("Setting that does not go with the policy", [P | {"policy": {"name": "paper", "reuse": False}}],
         ((1, "policy.reuse"),)),
    Case("Both names of one setting", [P | {"policy": {"name": "paper", "ret_steps": 3, "warmup_steps": 3}}],
         ((1, "policy.warmup_steps"),)),
    Case("K/V budget of nothing", [P | {"policy": {"name": "flowcache", "kv": {"keep": "recent", "chunks": 0}}}],
         ((1, "policy.kv.chunks"),)),
    Case("K/V setting that is missing", [P | {"policy": {"name": "flowcache", "kv": {"keep": "sink", "chunks": 2}}}],
         ((1, "policy.kv.first"),)),
    Case("K/V setting of another kind",
         [P | {"policy": {"name": "paper", "kv": {"keep": "recent", "chunks": 2, "by": "frame"}}}],
         ((1, "policy.kv.by"),)),
    Case("Unknown K/V setting", [P | {"policy": {"name": "paper", "kv": {"keep": "all", "chunk": 2}}}],
         ((1, "policy.kv.chunk"),)),
    Case("Nested label", [P | {"labels": {"take": [1]}}], ((1, "labels.take"),)),
    Case("Missing picture", [P | {"image": "none.png"}], ((1, "image"),)),
    Case("Damaged picture", [P | {"image": "half.png"}], ((1, "image"),)),
    Case("Picture that is none", [P | {"image": "text.png"}], ((1, "image"),)),
    Case("Missing video", [P | {"video": "none.mp4"}], ((1, "video"),)),
    Case("Video that cannot be decoded", [P | {"video": "text.png"}], ((1, "video"),)),
    Case("Picture for a video", [P | {"video": "start.png"}], ((1, "video"),)),
    Case("Video too short to continue", [P | {"video": "start.mp4", "fps": 1}], ((1, "video"),)),
    Case("Picture and video", [P | {"image": "start.png", "video": "start.mp4"}], ((1, "video"),)),
    Case("Missing last picture", [P | {"image": "start.png", "end_image": "none.png"}], ((1, "end_image"),)),
    Case("Video for a last picture", [P | {"end_image": "start.mp4"}], ((1, "end_image"),)),
    Case("Policy without settings", [P | {"policy": "off:slow"}, P | {"policy": {"name": "off", "threshold": 1}}],
         ((1, "policy"), (2, "policy.threshold"))),
    Case("Fields of another family", [P | {"special_tokens": ["hq"]}, P | {"prev_chunks_scale": 0.7}],
         ((1, "special_tokens"), (2, "prev_chunks_scale"))),
    Case("Shift, chunk or noise out of range",
         [P | {"shift": 0}, P | {"causal_block_size": 2.5}, P | {"addnoise_condition": 1001}],
         ((1, "shift"), (2, "causal_block_size"), (3, "addnoise_condition"))),
    Case("Window of no whole number of chunks", [P | {"base_num_frames": 50}, P | {"overlap_history": 17}],
         ((1, "base_num_frames"), (2, "overlap_history"))),
    Case("Window without room",
         [P | {"base_num_frames": 9}, P | {"overlap_history": 57}, P | {"causal_block_size": 20}],
         ((1, "base_num_frames"), (2, "overlap_history"), (3, "causal_block_size"))),
    Case("Picture that fills the shot", [P | {"image": "start.png", "causal_block_size": 1, "frames": 1}],
         ((1, "image"),)),
    Case("Way to fit that is none", [P | {"fit": "cover"}, P | {"video_from": "middle"}],
         ((1, "fit"), (2, "video_from"))),
    Case("Solver that is none", [P | {"solver": "euler"}], ((1, "solver"),)),
    Case("Lag out of range", [P | {"ar_step": -1}, P | {"ar_step": 0.5}], ((1, "ar_step"), (2, "ar_step"))),
    Case("Scheme that is not allowed", [P | {"image": "ftp://user:secret@host/x.png?key=secret"}], ((1, "image"),)),
    Case("Line that is no JSON", '{"prompt": "a red circle"\n{"prompt": "a red circle"}\n', ((1, ""),)),
    Case("Line that is no object", '{"prompt": "a red circle"}\n["a red circle"]\n', ((2, ""),)),
    Case("Line that is not UTF-8", b'{"prompt": "caf\xe9"}\n', ((1, ""),), said='{"prompt": "caf\\xe9"} in Latin-1'),
    Case("CSV record with too few cells", "id,prompt\nv1\n", ((2, ""),), "night.csv"),
    Case("CSV cell that is no number", "prompt,seed\na red circle,many\n", ((2, "seed"),), "night.csv"),
    Case("CSV cell that is no JSON", 'shots,seed\n[oops,1\n', ((2, "shots"),), "night.csv"),
    Case("CSV quote that is never closed", 'id,prompt\nv1,"a red circle\n', ((2, ""),), "night.csv"),
    Case("CSV cell under no name", "id,prompt,\nv1,a red circle,7\n", ((2, ""),), "night.csv"),
    Case("Request for text in a batch file", [{"custom_id": "v1", "body": {"messages": []}}], ((1, "body"),)),
    Case("File that is neither picture nor video", [{"file_name": "a.doc", "text": "a circle"}], ((1, "file_name"),)),
    Case("CSV column given twice", "id,id\nv1,v2\n", ((1, ""),), "night.csv"),
    Case("CSV separated by semicolons", "id;prompt\nv1;a red circle\n", ((1, ""),), "night.csv"),
    Case("Missing manifest", ABSENT, ((None, ""),), "absent.jsonl", said="(no such file)"),
    Case("Empty manifest", b"", ((None, ""),), said="(0 bytes)"),
    Case("Manifest with a header only", "id,prompt\n", ((None, ""),), "night.csv"),
    Case("Name without a known ending", b"{}", ((None, ""),), "night.xlsx"),
    Case("Parquet named JSON Lines", PARQUET, ((None, ""),), said="(the bytes of a Parquet file)"),
    Case("Text named Parquet", "id,prompt\n", ((None, ""),), "night.parquet"),
    Case("CSV named JSON Lines", "id,prompt\nv1,a red circle\n", ((None, ""),)),
    Case("JSON named CSV", [P], ((None, ""),), "night.csv"),
    Case("JSON array named JSON Lines", '[{"prompt": "a red circle"},\n {"prompt": "b"}]\n', ((None, ""),)),
    Case("Picture named CSV", PNG, ((None, ""),), "night.csv", said="(the bytes of a PNG picture)"),
    Case("UTF-16", '{"prompt": "a"}'.encode("utf-16"), ((None, ""),), said="(UTF-16 text)"),
    Case("Damaged Parquet", PARQUET[:3000], ((None, ""),), "night.parquet", said="(half a Parquet file)"),
    Case("Job file: faults of several kinds", "manifest: night.jsonl\noutputs: out\npolicy: papr\ngang: true\n",
         ((None, "output"), (None, "policy"), (None, "gang"), (None, "outputs")), "night.yaml"),
    Case("Job file: key given twice", "manifest: a.jsonl\nmanifest: b.jsonl\n", ((None, ""),), "night.yaml"),
    Case("Job file: broken YAML", "manifest: [a.jsonl\n", ((None, ""),), "night.yaml"),
    *(Case(f"Weights: {bad.title}", bad.content, ((None, ""),), bad.file, bad.said) for bad in BAD),
    *(Case(f"Output: {title}", f"manifest: night.jsonl\noutput: '{url}'\n", ((None, "output"),), "night.yaml")
      for title, url in OUTPUTS.items()),
]  # fmt: skip


def lay_out_media(folder: Path) -> None:
    """The pictures and videos that the cases name."""
    (folder / "start.png").write_bytes(PNG)
    (folder / "half.png").write_bytes(PNG[: len(PNG) // 2])
    (folder / "text.png").write_text("no picture\n")
    (folder / "start.mp4").write_bytes((ROOT / "manifests" / "media" / "start.mp4").read_bytes())


def table() -> str:
    """docs/bad-input.md, the cases being tried out in the current directory."""
    lay_out_media(Path())
    lines = [
        "# What bad input is told",
        "",
        "Every case below ends with exit code 2 before anything has started. All faults of a manifest are told at",
        "once. With `--keep-going` the good rows are rendered and the bad ones recorded with these messages; faults",
        "of a whole file (without a row, or in a CSV header) still end it. `tiny-skyreels` stands for a model of two",
        "sizes with the bundled one's lengths, `skyreels-v2` for one of any size, `model.safetensors` and `vae.pth`",
        "for files of a checkpoint.",
        "",
        "Written by `python -m tests.unit.inputs.test_manifest`; a test compares it with what the code says.",
        "",
        "| Case | Written | Message |",
        "|---|---|---|",
    ]
    for case in CASES:
        said = case.said or case.content.decode().strip().replace("\n", " ⏎ ")
        said = said if len(said) <= 110 else f"{said[:60]}... ({len(said):,} characters)"
        lines.append(line(case.title, said, *map(str, case.problems())))
    lines += [
        "",
        "What `flowcache models check` says of what is given as a model and is none, or another one. Of the files of",
        "weights above it says the same, with their paths.",
        "",
        "| Case | Given | Message |",
        "|---|---|---|",
        *(line(*cells) for cells in rows()),
    ]
    return "\n".join(lines) + "\n"


def line(title: str, *texts: str) -> str:
    """Of a table: a case, what was given, and what is said of it."""
    given, *told = (f"`{text}`".replace("|", "\\|") for text in texts)
    return f"| {title} | {given} | {'<br>'.join(told)} |"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_bad_input_is_told_where_it_is(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out_media(tmp_path)
    problems = case.problems()
    assert [(problem.row, problem.field) for problem in problems] == list(case.where)
    assert all(problem.file == case.file and problem.message for problem in problems)
    told = "\n".join(map(str, problems))
    assert len(told) < 400 * len(problems) and "secret" not in told and told.replace("\n", "").isprintable()


def test_the_table_in_the_docs_is_what_the_code_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DOC.read_text() == table(), "run python -m tests.unit.inputs.test_manifest"


def test_all_faults_of_all_rows_come_at_once_in_order():
    rows = [
        {"id": "a", "prompt": "x\x07", "seed": "1", "steps": True, "frames": 50, "width": 60, "guidance": math.nan},
        P | {"id": "b"},
        {"shots": [{"prompt": " "}, {"frames": 13, "cut": True}, 7, P | {"frames": 12.5}]},
        P | {"image": "missing.png", "model": "sora", "height": -4, "policy": {"name": "off", "preset": "slow"}},
    ]
    requests, problems, _ = check(rows)
    assert [request.id for request in requests] == ["b"]
    assert sorted((problem.row, problem.field) for problem in problems) == [
        (1, "frames"), (1, "guidance"), (1, "prompt"), (1, "seed"), (1, "steps"), (1, "width, height"),
        (3, "shots[0].prompt"), (3, "shots[1].frames"), (3, "shots[1].prompt"), (3, "shots[2]"), (3, "shots[3].frames"),
        (4, "height"), (4, "image"), (4, "model"),
    ]  # fmt: skip
    assert [problem.row for problem in problems] == sorted(problem.row for problem in problems)


def test_lengths_name_the_nearest_valid_ones():
    _, problems, _ = check([P | {"frames": 50}, P | {"frames": 3}, P | {"frames": 50, "video": "v.mp4"}])
    near = ["nearest 45 or 57;", "nearest 9;", "nearest 48 or 60;"]
    assert all(text in problem.message for text, problem in zip(near, problems, strict=True))


def test_lengths_of_a_model_without_a_causal_codec():
    """A fresh start has as many frames as a continuation, and a picture's chunk too."""
    whole = replace(REAL, name="whole", chunk=6, window=24, overlap=6, causal=False)
    rows = [
        P | {"frames": 24}, P | {"frames": 48, "image": "i.png"}, P | {"frames": 21},
        P | {"frames": 24, "video": "short.mp4"},
    ]  # fmt: skip
    requests, problems, _ = validate(
        starmap(Line, enumerate(rows, 1)), "n.jsonl", lambda name: whole, RowDefaults(), probe
    )
    assert [request.frames for request in requests] == [24, 48]
    assert "nearest 24; accepted: 24, 48, 72 and so on for a fresh start with whole" in problems[0].message
    assert problems[1].message.endswith("has 7 frames at 24 fps; accepted: at least 24 for whole to continue")


def test_a_setting_has_one_identity_whatever_name_is_written():
    published, ours = (one(P | {"policy": {"name": "paper", key: 3}}) for key in ("ret_steps", "warmup_steps"))
    assert published == ours and ours.policy == {"name": "paper", "ret_steps": 3, "preset": "slow"}


def test_dense_reuses_only_where_a_row_says_so():
    policies = ("dense", "dense:fast", {"name": "dense", "threshold": 0.3})
    wanted = (
        {"name": "dense"},
        {"name": "dense", "preset": "fast"},
        {"name": "dense", "threshold": 0.3, "preset": "slow"},
    )
    assert [one(P | {"policy": policy}).policy for policy in policies] == list(wanted)


# As before there were fields that came later: a row that names none of them has the same ones.
FIRST_ID = "v-137304c8311eb93f"
FIRST_RUN = "496c5dd5d3648889c87a400232ccd36a7647f8bf59579e91153b399fccf9be08"


def test_fields_that_came_later_change_nothing_where_they_are_not_said():
    plain = one(P)
    assert plain.id == FIRST_ID and not {*LATER} & plain.to_dict().keys()
    assert spec_hash([plain], {}, {}) == FIRST_RUN
    said = {
        "shift": 8.0, "addnoise_condition": 20.0, "base_num_frames": 45, "overlap_history": 9, "causal_block_size": 3,
        "fit": "crop", "video_from": "end", "solver": "corrected",
    }  # fmt: skip
    assert {*said} == {*LATER} - {"special_tokens", "prev_chunks_scale"}  # MAGI-1's: test_magi_rows
    for field, value in said.items():
        request = one(P | {field: value})
        assert request.to_dict()[field] == value and RenderRequest.from_dict(request.to_dict()) == request
        assert request == one(P, **{field: value}) and request.id != plain.id
        same = replace(request, id=plain.id, seed=plain.seed)
        assert spec_hash([same], {}, {}) != FIRST_RUN


def test_lengths_and_windows_follow_the_chunks_that_a_row_asks_for():
    request = one(P | {"causal_block_size": 1, "base_num_frames": 57, "overlap_history": 17, "frames": 61})
    spec = TINY.asked(vars(request))
    assert (spec.chunk, spec.window, spec.overlap) == (1, 15, 5)
    assert [(each.chunks, each.frames) for each in plan(request, TINY)] == [(15, 57), (1, 4)]
    halves = TINY.asked({"causal_block_size": 2})
    assert (halves.window, halves.overlap) == (14, 2) and halves.asked({"causal_block_size": 2}) == halves
    assert TINY.asked({"shift": None}) is TINY
    _, problems, _ = check([P | {"causal_block_size": 5, "frames": 21}])
    assert "nearest 17 or 37; accepted: 17, 37, 57" in problems[0].message


def test_the_official_negative_prompt_can_be_had_by_name():
    assert one(P | {"negative_prompt": "official"}) == one(P | {"negative_prompt": NEGATIVE_PROMPT})
    assert one(P, negative_prompt="official").negative_prompt == NEGATIVE_PROMPT


def test_sizes_name_the_nearest_valid_ones():
    row = P | {"model": "skyreels-v2", "frames": 17, "width": 950, "height": 9000}
    _, problems, _ = check([row, P | {"width": 100, "height": 64}])
    assert "nearest 944 or 960;" in problems[0].message and "nearest 8,192;" in problems[1].message
    assert problems[2].message.endswith("nearest first: 96x64, 64x64")


def test_seconds_are_rounded_to_the_nearest_valid_length():
    assert [one(P | {"seconds": s}).frames for s in (0.01, 1, 1.3, 3, 4, 5)] == [9, 9, 21, 33, 45, 57]
    assert [one(P | {"seconds": s, "video": "v.mp4"}).frames for s in (0.01, 1.4, 4)] == [12, 12, 48]
    assert one(P | {"seconds": 2, "fps": 24}).frames == 45


def test_lengths_come_from_the_row_else_the_defaults_else_the_model():
    assert one(P).frames == 57 and one(P | {"video": "v.mp4"}).frames == 60
    assert one(P, frames=40).frames == 45 and one(P, seconds=2).frames == 21
    assert one(P | {"frames": 9}, seconds=2).frames == 9


def test_what_a_row_does_not_say_comes_from_the_defaults_and_then_from_the_model():
    request = one(P | {"id": "v"})
    assert (request.width, request.fps, request.steps, request.guidance) == (64, 12, 30, 3.0)
    assert (request.ar_step, one(P, ar_step=0).ar_step, one(P | {"ar_step": 3}, ar_step=0).ar_step) == (5, 0, 3)
    assert (request.policy, request.seed) == ({"name": "off"}, default_seed("v"))
    fewer = P | {"steps": 15}  # the right solver keeps chunks as many noise levels apart; officially as many steps
    rightly, said = fewer | {"solver": "corrected"}, fewer | {"policy": "flowcache:0.5", "ar_step": 4}
    lags = [one(row).ar_step for row in (fewer, rightly, fewer | {"policy": "flowcache:0.5"}, said)]
    assert lags == [5, None, None, 4] and one(rightly, ar_step=3).ar_step == 3
    request = one(P | {"steps": 7}, steps=9, guidance=1, seed=5, policy="paper", negative_prompt="grey", width=96)
    assert (request.steps, request.guidance, request.seed, request.width) == (7, 1.0, 5, 96)
    assert (request.policy, request.negative_prompt) == ({"name": "paper", "preset": "slow"}, "grey")


def test_shots_after_the_first_continue_unless_they_cut():
    rows = {"shots": [P | {"frames": 9}, P | {"frames": 12}, P | {"frames": 21, "cut": True}]}
    assert [shot.cut for shot in one(rows).shots] == [True, False, True]
    assert one(P | {"video": "v.mp4", "frames": 24}).shots == (Shot("a red circle", 24, cut=False),)
    assert one(P | {"image": "i.png", "frames": 9}).shots[0].cut


def test_media_become_absolute_and_are_opened_once_each():
    opened = []

    def counting(url, kind, file):
        opened.append((url, kind))
        return probe(url, kind, file)

    rows = [(i, P | {"image": "i.png", "seed": i}) for i in range(1, 50)] + [(50, P | {"video": "i.png"})]
    requests, problems, _ = validate(starmap(Line, rows), "f", spec_of, RowDefaults(), counting)
    assert problems == [] and sorted(opened) == [("i.png", "image"), ("i.png", "video")]
    assert requests[0].image == "/media/i.png" and requests[49].video == "/media/i.png"


def test_a_video_may_start_and_end_with_a_picture():
    request = one(P | {"image": "i.png", "end_image": "e.png"})
    assert (request.image, request.end_image) == ("/media/i.png", "/media/e.png")
    request = one(P | {"video": "v.mp4", "end_image": "e.png", "frames": 12})
    assert (request.video, request.end_image) == ("/media/v.mp4", "/media/e.png")
    assert one(P).id != one(P | {"end_image": "e.png"}).id != one(P | {"image": "e.png"}).id


def test_a_chunk_needs_room_between_its_pictures():
    spec = replace(TINY, chunk=2)
    _, problems, _ = validate([Line(1, P | {"end_image": "e.png"})], "f", lambda name: spec, RowDefaults(), probe)
    assert [problem.field for problem in problems] == ["end_image"] and "at least 3" in problems[0].message


def test_a_video_must_hold_what_the_model_needs_to_continue():
    _, problems, _ = check([P | {"video": "short.mp4"}, P | {"video": "long.mp4"}])
    assert [problem.row for problem in problems] == [1]
    assert "has 4 frames at 12 fps" in problems[0].message and "at least 9 " in problems[0].message


def test_ids_of_rows_without_one_follow_from_what_is_rendered():
    ids = {one(P | change).id for change in ({}, {"seed": 1}, {"frames": 9}, {"image": "i.png"}, {"policy": "paper"})}
    assert len(ids) == 5 and all(name.startswith("v-") and len(name) == 18 for name in ids)
    assert one(P).id == one(P | {"priority": 3, "labels": {"a": "b"}}).id == one(P | {"frames": 57}).id


def test_a_duplicate_leaves_the_first_row_as_it_is():
    requests, problems, _ = check([P | {"id": "v", "seed": 1}, P | {"id": "V", "seed": "x"}])
    assert [request.seed for request in requests] == [1]
    assert {(problem.row, problem.video) for problem in problems} == {(2, None)}


def test_problems_carry_the_id_where_it_is_usable():
    _, problems, _ = check([P | {"id": "v", "seed": -1}, P | {"id": "../v", "seed": -1}, P | {"seed": -1}])
    assert [(problem.row, problem.video) for problem in problems] == [(1, "v"), (2, None), (2, None), (3, None)]


def test_whole_floats_are_whole_numbers_and_null_is_absent():
    request = one(P | {"seed": 3.0, "steps": 4.0, "image": None, "labels": None, "frames": 57.0})
    assert (request.seed, request.steps, request.frames, request.labels) == (3, 4, 57, {})


def test_labels_become_text():
    labels = {"take": 3, "score": 0.5, "final": True, "show": "pilot"}
    assert one(P | {"labels": labels}).labels == {"take": "3", "score": "0.5", "final": "true", "show": "pilot"}


def test_a_floor_that_nothing_is_judged_by_is_a_warning():
    """The model of these rows has no calibration that says what residuals it saw."""
    policy = {"name": "flowcache", "budget": 0.11, "quality_floor": 1.5}
    requests, problems, (warning,) = check([P | {"policy": policy}])
    assert (requests[0].policy, problems, warning.field) == (policy, [], "policy.quality_floor")
    assert "has no calibration up to budget 0.11 that says what residuals it saw" in warning.message


def test_a_row_with_the_right_solver_takes_what_was_calibrated_to_the_converged_walk():
    """What comes close to `off` has the fault of the official solver in it, which this row does without."""
    budget = {"name": "flowcache", "budget": 0.5}
    for solver, policy, taken in (
        ("corrected", budget, {**budget, "target": "converged"}),
        ("corrected", {**budget, "target": "off"}, {**budget, "target": "off"}),
        ("corrected", {"name": "off"}, {"name": "off"}),
        ("official", budget, budget),
        (None, budget, budget),
        (None, {**budget, "target": "converged"}, {**budget, "target": "converged"}),
    ):
        by = {"solver": solver} if solver else {}
        assert one(P | {"policy": policy} | by).policy == one(P | {"policy": policy}, **by).policy == taken
    assert one(P | {"policy": budget, "solver": "official"}, solver="corrected").policy == budget
    _, (problem,), _ = check([P | {"policy": {**budget, "target": "best"}}])
    assert problem.field == "policy.target" and "'off' or 'converged'" in problem.message


def test_unknown_words_are_a_warning():
    requests, problems, warnings = check([P | {"prompt": "A red zebra"}, P])
    assert len(requests) == 2 and problems == []
    assert [(warning.row, warning.field) for warning in warnings] == [(1, "prompt")]
    assert "'zebra'" in warnings[0].message and "'red'" not in warnings[0].message


def test_messages_hold_no_credentials():
    url = "https://user:hunter2@host/missing.png?X-Amz-Signature=hunter2"
    _, problems, _ = check([P | {"image": url}], file="s3://key:hunter2@bucket/night.jsonl")
    assert "hunter2" not in str(problems) and "host/missing.png" in problems[0].message


def test_every_row_field_says_what_it_accepts_and_is_in_the_docs():
    text = (ROOT / "docs" / "manifest.md").read_text()
    assert all(f"| `{name}` |" in text and name in ACCEPTS for name in Row.model_fields)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*Row.model_fields, "unknown", "\x00"])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.dictionaries(fields, json_values | st.sampled_from(["paper", "a red circle", 57, 64]), max_size=6)))
def test_any_row_ends_as_a_request_or_as_problems(rows):
    requests, problems, _ = check(rows)
    bad = {problem.row for problem in problems}
    assert len(requests) == len(rows) - len(bad)
    assert all(len(str(problem)) < 600 and str(problem).isprintable() for problem in problems)
    for request in requests:
        json.dumps(request.to_dict(), allow_nan=False).encode()


@given(st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.none() | st.booleans())
def test_what_is_shown_is_short_and_printable(value):
    assert len(shown(value)) < 100 and shown(value).isprintable()


def test_thirty_thousand_rows_are_checked_in_seconds():
    rows = [(i, {"id": f"v{i}", "prompt": "a red circle", "frames": 45}) for i in range(30_000)]
    start = time.process_time()
    requests, problems, warnings = check(rows, numbered=True)
    assert (len(requests), problems, warnings) == (30_000, [], [])
    assert time.process_time() - start < 20  # 1.5 s on a quiet machine: this catches what grows with the square


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        DOC.write_text(table())
    sys.stdout.write(f"{DOC} written\n")
