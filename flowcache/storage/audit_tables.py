"""The check of `verify` that compares the Parquet tables with the markers."""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.storage import layout
from flowcache.storage.audit import Audit, Damage
from flowcache.storage.commits import Commits
from flowcache.storage.documents import RunRecord
from flowcache.storage.objects import Store
from flowcache.storage.schemas import CHUNKS, VIDEOS
from flowcache.storage.tables import chunk_rows, video_rows

Rows = list[dict[str, Any]]


def check_tables(store: Store, run: RunRecord, commits: Commits, finished: bool, audit: Audit) -> Iterator[Damage]:
    """Both tables must hold exactly the rows that the markers give. Before the run's end they may lag behind
    (rows may be missing, or be there twice while parts are replaced), but what they hold must be right."""
    yield from check_table(store, run, "videos", VIDEOS, video_rows(run, commits), finished, audit)
    yield from check_table(store, run, "chunks", CHUNKS, chunk_rows(commits), finished, audit)


def check_table(
    store: Store, run: RunRecord, name: str, schema: pa.Schema, wanted: Rows, finished: bool, audit: Audit
) -> Iterator[Damage]:
    prefix = layout.table_prefix(name, run.run_id)
    held: Rows = []
    for entry in store.list(f"{layout.META}/{name}"):
        if not (entry.key.startswith(f"{prefix}/part-") and entry.key.endswith(".parquet")):
            yield Damage(f"a foreign file among the {name} tables breaks readers", key=entry.key)
            continue
        try:
            table = pq.read_table(io.BytesIO(store.get(entry.key)))
        except (pa.ArrowInvalid, OSError) as fault:
            yield Damage(f"is no readable Parquet file: {fault}", key=entry.key)
            continue
        if not table.schema.equals(schema):
            yield Damage(f"has another schema than meta/{name} of this version", key=entry.key)
            continue
        held += table.to_pylist()
    audit.rows += len(held)
    right = pa.Table.from_pylist(wanted, schema=schema).to_pylist()
    if finished and sorted(map(identity, held)) != sorted(map(identity, right)):
        yield Damage(f"does not hold the rows that the markers give ({len(held)} rows of {len(right)})", key=prefix)
        return
    yield from compare(prefix, held if finished else [row for row in held if lasting(row)], right)


def lasting(row: dict[str, Any]) -> bool:
    """Whether the row can't change any more: a committed chunk, or a video that is done."""
    return row.get("status", "done") == "done"


def compare(prefix: str, held: Rows, wanted: Rows) -> Iterator[Damage]:
    """The first row that differs says more than the fact that the tables do."""
    by_identity = {identity(row): row for row in wanted}
    for row in sorted(held, key=identity):
        right = by_identity.get(identity(row))
        if right is None:
            yield Damage("a row that no marker gives", row["video_id"], row.get("segment"), row.get("chunk"), prefix)
            return
        fields = [name for name in right if row[name] != right[name]]
        if fields:
            message = f"the row differs from the markers in {', '.join(fields)}"
            yield Damage(message, row["video_id"], row.get("segment"), row.get("chunk"), prefix)
            return


def identity(row: dict[str, Any]) -> tuple:
    """What names a row; rejected rows without an id are told apart by their error."""
    return row["video_id"] or "", row.get("chunk", 0), "" if row["video_id"] else row["error"] or ""
