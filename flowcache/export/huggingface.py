"""A video dataset folder, as `datasets.load_dataset` and the Hub read it (huggingface.co/docs/hub/datasets-video)."""

import hashlib
import io
import json
from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.export.film import Film
from flowcache.export.plan import Plan, Read
from flowcache.export.target import File

COLUMNS = {
    "file_name": "the video, relative to this folder; `datasets` gives it as `video`",
    "prompt": "prompts of all shots, one a line",
    "labels": "labels of the manifest row, as JSON",
    "digital_source_type": "IPTC's term for what generative AI made",
}


def huggingface(films: Sequence[Film], read: Read) -> Plan:
    """videos/XX/ID.mp4, metadata.parquet with a row each, and a card. XX: of a hash, as the Hub takes 10,000 files in
    a folder."""
    files = [File(path(film), f".mp4 {film.source}", partial(read, film)) for film in films]
    rows = metadata(films)
    said = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return Plan(
        files, [File("README.md", said, partial(card, films)), File("metadata.parquet", said, partial(parquet, rows))]
    )


def path(film: Film) -> str:
    return f"videos/{hashlib.sha256(film.id.encode()).hexdigest()[:2]}/{film.id}.mp4"


def metadata(films: Sequence[Film]) -> list[dict]:
    return [{"file_name": path(film)} | film.told() for film in films]


def parquet(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    return buffer.getvalue()


def card(films: Sequence[Film]) -> bytes:
    told = [f"| `{name}` | {COLUMNS.get(name, 'as in the run')} |" for name in metadata(films[:1])[0]]
    models = ", ".join(sorted({film.request["model"] for film in films}))
    lines = [
        "---",
        "tags: [video, synthetic]",
        "---",
        "# Videos rendered with Flowcache",
        "",
        f"{len(films):,} videos with their prompts, {sum(film.frames for film in films):,} frames. All were made by a",
        f"generative AI model ({models}); each file says so in its metadata, too.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'videos = load_dataset("THIS_FOLDER_OR_ID", split="train")',
        "```",
        "",
        "| column | |",
        "|---|---|",
        *told,
    ]
    return ("\n".join(lines) + "\n").encode()
