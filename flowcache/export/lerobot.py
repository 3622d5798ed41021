"""LeRobot's dataset format v3.0, a video an episode (huggingface.co/docs/lerobot, `lerobot.datasets` 0.4).

There are no actions and no robot: what world models are trained on, pictures with a task for each frame.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.errors import InputError, Problem
from flowcache.export.film import Film
from flowcache.export.plan import Plan, Read
from flowcache.export.target import File
from flowcache.report.frames import spread_frames
from flowcache.storage.committed import chunks_of
from flowcache.storage.objects.store import Store

VERSION, FILES = "v3.0", 1000  # files of a folder ("chunk"), and episodes of a table
CAMERA = "observation.images.main"
SEEN = 100  # films of which a frame counts in the pictures' statistics
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
NUMBERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def lerobot(films: Sequence[Film], read: Read, store: Store) -> Plan:
    """InputError where the films differ in size or frame rate, which a dataset has one of."""
    check(films)
    tasks = {prompt: number for number, prompt in enumerate(dict.fromkeys(p for film in films for p in film.prompts))}
    starts = [0, *accumulate(film.frames for film in films)]
    said = hashlib.sha256(json.dumps([[film.source, film.told()] for film in films]).encode()).hexdigest()
    files = [
        File(place(f"videos/{CAMERA}", n, "mp4"), f".mp4 {film.source}", partial(read, film), (film.id,))
        for n, film in enumerate(films)
    ]
    tables = {
        place("data", number, "parquet"): partial(frames_table, films, starts, tasks, number * FILES)
        for number in range(-(-len(films) // FILES))
    }
    index = tables | {
        "meta/episodes/chunk-000/file-000.parquet": partial(episodes_table, films, starts),
        "meta/tasks.parquet": partial(tasks_table, tasks),
        "meta/stats.json": partial(statistics, films, starts, tasks, store),
        "meta/info.json": partial(info, films, tasks),
    }
    return Plan(files, [File(key, said, make) for key, make in index.items()])


def check(films: Sequence[Film]) -> None:
    kinds = Counter((film.request["width"], film.request["height"], film.fps) for film in films)
    if len(kinds) > 1:
        told = ", ".join(f"{n:,} of {w}x{h} at {fps} fps" for (w, h, fps), n in kinds.most_common(5))
        width, height, fps = kinds.most_common(1)[0][0]
        accepted = f'videos of one kind, as with --where "width = {width} and height = {height} and fps = {fps}"'
        raise InputError([Problem("--format", "lerobot", f"got {told}; accepted: {accepted}")])


def place(folder: str, number: int, end: str) -> str:
    return f"{folder}/{PLACE.format(chunk_index=number // FILES, file_index=number % FILES)}.{end}"


def task_of(film: Film, tasks: dict[str, int]) -> np.ndarray:
    """The number of each frame's prompt, int64 [frames]."""
    each = [np.full(shot["frames"], tasks[shot["prompt"]]) for shot in film.request["shots"]]
    return np.concatenate(each)[: film.frames].astype(np.int64)


def columns(films: Sequence[Film], starts: Sequence[int], tasks: dict[str, int], first: int) -> dict[str, np.ndarray]:
    """Of every frame of these films, the first of which is episode `first`."""
    lengths = [film.frames for film in films]
    frames = np.concatenate([np.arange(length) for length in lengths])
    return {
        "timestamp": (frames / float(films[0].fps)).astype(np.float32),
        "frame_index": frames.astype(np.int64),
        "episode_index": np.repeat(np.arange(first, first + len(films)), lengths),
        "index": np.arange(starts[first], starts[first + len(films)]),
        "task_index": np.concatenate([task_of(film, tasks) for film in films]),
    }


def frames_table(films: Sequence[Film], starts: Sequence[int], tasks: dict[str, int], first: int) -> bytes:
    return written(pa.table(columns(films[first : first + FILES], starts, tasks, first)))


def episodes_table(films: Sequence[Film], starts: Sequence[int]) -> bytes:
    rows = [
        {
            "episode_index": number,
            "tasks": list(dict.fromkeys(film.prompts)),
            "length": film.frames,
            "data/chunk_index": number // FILES // FILES,
            "data/file_index": number // FILES % FILES,
            "dataset_from_index": starts[number],
            "dataset_to_index": starts[number + 1],
            f"videos/{CAMERA}/chunk_index": number // FILES,
            f"videos/{CAMERA}/file_index": number % FILES,
            f"videos/{CAMERA}/from_timestamp": 0.0,
            f"videos/{CAMERA}/to_timestamp": float(film.frames / film.fps),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "video_id": film.id,
            "seed": film.request["seed"],
        }
        for number, film in enumerate(films)
    ]
    return written(pa.Table.from_pylist(rows))


def tasks_table(tasks: dict[str, int]) -> bytes:
    """As pandas writes a frame whose index is the prompt: LeRobot reads it so."""
    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
    kinds = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    named = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in kinds
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": named, "pandas_version": "2.2.0"}
    return written(table.replace_schema_metadata({"pandas": json.dumps(pandas)}))


def statistics(films: Sequence[Film], starts: Sequence[int], tasks: dict[str, int], store: Store) -> bytes:
    """Of all frames' numbers; of pictures, by channel from 0 to 1, over the middle frames of at most 100 films."""
    found = dict[str, Any]()
    for name, values in columns(films, starts, tasks, 0).items():
        found[name] = {
            "min": [values.min().item()], "max": [values.max().item()],
            "mean": [float(values.mean())], "std": [float(values.std())], "count": [len(values)],
        }  # fmt: skip
    middles = []
    for film in films[:: -(-len(films) // SEEN)]:
        frames = spread_frames(store, film.id, chunks_of(film.markers), 3)
        middles.append(frames[len(frames) // 2])
    pixels = np.stack(middles).reshape(-1, 3) / 255
    for name, reduce in {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}.items():
        found.setdefault(CAMERA, {})[name] = [[[float(one)]] for one in reduce(pixels, axis=0)]
    found[CAMERA]["count"] = [len(middles)]
    return json.dumps(found, indent=2).encode()


def info(films: Sequence[Film], tasks: dict[str, int]) -> bytes:
    width, height, fps = films[0].request["width"], films[0].request["height"], films[0].told()["fps"]
    video = {"video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p"}
    video |= {"video.is_depth_map": False, "video.fps": fps, "video.channels": 3, "has_audio": False}
    camera = {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": video}
    numbers = {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in NUMBERS.items()}
    found = {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": len(films),
        "total_frames": sum(film.frames for film in films),
        "total_tasks": len(tasks),
        "chunks_size": FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(films)}"},
        "data_path": f"data/{PLACE}.parquet",
        "video_path": f"videos/{{video_key}}/{PLACE}.mp4",
        "features": {CAMERA: camera} | numbers,
    }
    return json.dumps(found, indent=2).encode()


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="snappy")
    return buffer.getvalue()
