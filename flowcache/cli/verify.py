"""`flowcache verify`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from flowcache.cli.common import Endpoint, Json, Output, err, open_store, out, print_json


def verify(
    output: Output,
    decode: Annotated[bool, typer.Option(help="Decode every chunk and count its frames.")] = True,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Re-hash everything, decode every chunk, count frames, compare with the playlists and Parquet.

    Exit code 4 when anything is damaged or missing; each damage is named.
    """
    from flowcache.storage.growth import some_of
    from flowcache.storage.verify import verify as verify_store

    report = verify_store(open_store(output, endpoint_url), decode=decode)
    if as_json:
        print_json({**asdict(report), "sound": report.sound})
    else:
        for problem in report.problems:
            err.print(f"[red]damaged:[/] {escape(str(problem))}")
        if report.foreign:
            err.print(f"ignored, of somebody else: {escape(some_of(report.foreign))}")
        counted = ", ".join(f"{number} {name}" for name, number in report.counts.items())
        out.print(f"{'sound' if report.sound else f'{len(report.problems)} problems'}: {counted}")
    raise typer.Exit(0 if report.sound else 4)
