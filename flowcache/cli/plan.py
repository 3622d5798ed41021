"""`flowcache plan`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from flowcache.cli.common import Json, out, print_json


def plan(
    manifest: Annotated[str | None, typer.Argument(help="JSONL, CSV or Parquet; a path or any fsspec URL.")] = None,
    job: Annotated[Path | None, typer.Option(help="Job spec (YAML); options given here override it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="For rows without one: a bundled name or checkpoint folder.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="For rows without one, as in render.")] = None,
    as_json: Json = False,
) -> None:
    """What a manifest costs before anything is rendered: segments, chunk forwards, FLOPs, K/V memory.

    Counted by walking the schedule without weights: of each model only its configuration is read.
    """
    from flowcache.api import plan as plan_requests
    from flowcache.job import merged

    # Nothing is written, so a manifest alone will do.
    spec = merged(job, manifest=manifest, model=model, policy=policy, **({} if job else {"output": "unused"}))
    cost = plan_requests(spec.manifest, defaults=spec.row_defaults())
    if as_json:
        print_json(asdict(cost))
        return
    table = Table("", "chunk forwards", "PFLOPs", "K/V of a window", box=None)
    rows = {f"policy {name}, without reuse": work for name, work in cost.without_reuse.items()}
    rows |= {"as asked, at most": cost.most, "as asked, at least": cost.least}
    for name, work in rows.items():
        table.add_row(
            escape(name), f"{work.forwards:,}", f"{work.flops / 1e15:,.4g}", f"{work.kv_bytes / 2**20:,.1f} MiB"
        )
    out.print(f"{cost.videos} videos, {cost.segments} segments, {cost.chunks} chunks, {cost.frames:,} frames")
    out.print(table)
