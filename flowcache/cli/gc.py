"""`flowcache gc`."""

from dataclasses import asdict
from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json


def gc(
    output: Output,
    grace: Annotated[
        float,
        typer.Option(min=0, max=87_600, help="Hours for which what an attempt began is left alone."),
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Remove what lost attempts and dead processes left behind, and expired links.

    Only objects that no marker names, of segments which another attempt has committed. Safe while a run goes on.
    """
    from flowcache.storage.gc import collect

    found = collect(open_store(output, endpoint_url), grace * 3600, dry_run)
    if as_json:
        print_json(asdict(found))
        return
    verb = "would be removed" if dry_run else "removed"
    out.print(f"{found.objects} objects, {found.bytes:,} bytes {verb}; {found.kept} of lost or running attempts kept")
