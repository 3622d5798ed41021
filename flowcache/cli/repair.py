"""`flowcache repair`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from flowcache.cli.common import Endpoint, Json, Output, err, open_store, out, print_json


def repair(
    output: Output,
    decode: Annotated[bool, typer.Option(help="Decode every chunk, as verify does.")] = True,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Mend what verify finds: lists and tables are written anew, damaged segments withdrawn for the next render.

    What was continued from a damaged segment goes with it; the old markers are kept below _withdrawn. Refused (exit
    code 2) while a driver is at work there. Exit code 4 where something is left that only a person can mend.

        flowcache repair s3://bucket/night
    """
    from flowcache.storage.repair import repair as repair_store

    done = repair_store(open_store(output, endpoint_url), decode, lambda message: err.print(escape(message)))
    if as_json:
        print_json(asdict(done))
    else:
        for problem in done.problems:
            verb = "left" if problem in done.left else "mended"
            err.print(f"[yellow]{verb}:[/] {escape(str(problem))}")
        segments = sum(map(len, done.withdrawn.values()))
        out.print(
            f"{len(done.problems)} problems; {segments} segments of {len(done.withdrawn)} videos are to be rendered "
            "again, by the render command of the run"
        )
    raise typer.Exit(4 if done.left else 0)
