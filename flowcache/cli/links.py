"""`flowcache links`."""

from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, print_json


def links(
    output: Output,
    video: Annotated[list[str] | None, typer.Argument(help="Videos by id; else every one that is done.")] = None,
    expires: Annotated[float, typer.Option(min=0, max=168, help="Hours for which the links hold, at most 168.")] = 24.0,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Links that play a video from a private bucket, for whoever has them, until they expire (S3, Google, Azure)."""
    from flowcache.errors import InputError, masked
    from flowcache.inputs.strangers import strangers
    from flowcache.storage.commits import list_commits
    from flowcache.storage.links import links as sign
    from flowcache.storage.runs import read_run

    store = open_store(output, endpoint_url)
    run = read_run(store)
    ids = [request["id"] for request in run.requests]
    if problems := strangers(video or (), ids, f"run {run.run_id}", masked(store.url)):
        raise InputError(problems)
    found = sign(store, video or sorted(list_commits(store).done), round(expires * 3600))
    if as_json:
        print_json(found)
        return
    for name, url in found.items():
        typer.echo(f"{name}\t{url}")
