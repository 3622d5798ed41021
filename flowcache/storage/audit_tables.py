"""The check of `verify` that compares the Parquet tables with the markers."""

import io
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.errors import ObjectError
from flowcache.storage import layout
from flowcache.storage.audit import Audit, Damage, check_sound
from flowcache.storage.commits import Commits
from flowcache.storage.control import command_rows, read_log
from flowcache.storage.documents import RunRecord
from flowcache.storage.objects.store import Store
from flowcache.storage.parts import TABLES, manifest_keys
from flowcache.storage.schemas import COMMANDS, MANIFESTS, completed
from flowcache.storage.tables import chunk_rows, manifest_rows, video_rows

Rows = list[dict[str, Any]]
LATER = ("finishes", "error")  # what a run still adds to a video that is done


def read_tables(store: Store, run: RunRecord, audit: Audit) -> dict[str, Rows]:
    """The rows of both tables; files that are no part of them become problems."""
    return {name: list(read_table(store, run, name, audit)) for name in TABLES}


def read_table(store: Store, run: RunRecord, name: str, audit: Audit) -> Iterator[dict[str, Any]]:
    prefix = layout.table_prefix(name, run.run_id)
    for entry in store.list(f"{layout.META}/{name}"):
        if not (entry.key.startswith(f"{prefix}/part-") and entry.key.endswith(".parquet")):
            if entry.size or "." in entry.key.rpartition("/")[2]:  # else a folder, as consoles mark it
                audit.problems.append(Damage(f"a foreign file among the {name} tables breaks readers", key=entry.key))
            continue
        rows: Rows = []
        audit.extend(
            check_sound(store, entry.key, partial(read_part, name, rows), missing=None)
        )  # None: replaced since
        audit.rows += len(rows)
        yield from rows


def read_part(name: str, rows: Rows, data: bytes) -> None:
    """Add the rows of a part of the table to `rows`; ObjectError where it is none."""
    try:
        table = completed(pq.read_table(io.BytesIO(data)), TABLES[name])
        found = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as fault:
        raise ObjectError(f"is no readable Parquet file: {fault}") from fault
    if not table.schema.equals(TABLES[name]):
        raise ObjectError(f"has another schema than meta/{name} of this version")
    rows.extend(found)


def check_tables(stored: dict[str, Rows], run: RunRecord, commits: Commits, finished: bool) -> Iterator[Damage]:
    """Both tables must hold exactly the rows that the markers give. Before the run's end they may lag behind
    (rows may be missing), but what they hold must be right, and be there once."""
    for name, rows in (("videos", video_rows(run, commits)), ("chunks", chunk_rows(commits))):
        prefix = layout.table_prefix(name, run.run_id)
        right = pa.Table.from_pylist(rows, schema=TABLES[name]).to_pylist()
        if not finished:
            yield from twice(prefix, stored[name])
            yield from compare(prefix, [row for row in stored[name] if lasting(row)], right, LATER)
        elif sorted(map(identity, stored[name])) != sorted(map(identity, right)):
            message = f"does not hold the rows that the markers give ({len(stored[name])} rows of {len(right)})"
            yield Damage(message, key=prefix)
        else:
            yield from compare(prefix, stored[name], right)


def check_manifests(store: Store, run: RunRecord, finished: bool) -> Iterator[Damage]:
    """The rows of each generation of a run that grew; before the run's end they may lack."""
    for key, rows in manifest_rows(run, manifest_keys(run)):
        read = partial(read_manifest, pa.Table.from_pylist(rows, schema=MANIFESTS))
        yield from check_sound(store, key, read, missing="is missing" if finished else None)


def check_commands(store: Store, run: RunRecord, finished: bool) -> Iterator[Damage]:
    """The rows of commands that were taken, which change no more; before the run's end they may lack."""
    rows = command_rows(run.run_id, read_log(store))
    right = pa.Table.from_pylist([row for row in rows if row["outcome"]], schema=COMMANDS)
    if right.num_rows:
        read = partial(read_commands, right, finished)
        missing = "is missing" if finished else None
        yield from check_sound(store, layout.commands_key(run.run_id), read, missing=missing)


def read_commands(right: pa.Table, finished: bool, data: bytes) -> None:
    """ObjectError where it is another table."""
    try:
        found = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as fault:
        raise ObjectError(f"is no readable Parquet file: {fault}") from fault
    wanted, stored = right.to_pylist(), [row for row in found if row.get("outcome")]
    if any(row not in wanted for row in stored) or (finished and len(stored) != len(wanted)):
        raise ObjectError("does not hold the rows that the commands give")


def read_manifest(right: pa.Table, data: bytes) -> None:
    """ObjectError where it is another table."""
    try:
        same = pq.read_table(io.BytesIO(data)).equals(right)
    except (pa.ArrowException, OSError, ValueError) as fault:
        raise ObjectError(f"is no readable Parquet file: {fault}") from fault
    if not same:
        raise ObjectError("does not hold the rows that the run's generations give")


def twice(prefix: str, stored: Rows) -> Iterator[Damage]:
    for (video_id, chunk, _), count in Counter(map(identity, stored)).items():
        if count > 1:
            yield Damage(f"chunk {chunk} has {count} rows", video_id, key=prefix)
            return


def lasting(row: dict[str, Any]) -> bool:
    """Whether the row can't change any more, but for what LATER names: a committed chunk, or a video that is done."""
    return row.get("status", "done") == "done"


def compare(prefix: str, stored: Rows, wanted: Rows, but: Collection[str] = ()) -> Iterator[Damage]:
    """The first row that differs says more than the fact that the tables do."""
    by_identity = {identity(row): row for row in wanted}
    for row in sorted(stored, key=identity):
        right = by_identity.get(identity(row))
        if right is None:
            yield Damage("a row that no marker gives", row["video_id"], row.get("segment"), row.get("chunk"), prefix)
            return
        fields = [name for name in right if row[name] != right[name] and name not in but]
        if fields:
            message = f"the row differs from the markers in {', '.join(fields)}"
            yield Damage(message, row["video_id"], row.get("segment"), row.get("chunk"), prefix)
            return


def identity(row: dict[str, Any]) -> tuple:
    """What names a row; rejected rows without an id are told apart by their error."""
    return row["video_id"] or "", row.get("chunk", 0), "" if row["video_id"] else row["error"] or ""
