"""`flowcache pause`, `resume`, `cancel`, `skip`, `prioritise` and `add`: what somebody tells a run by its store."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from flowcache.cli.common import Endpoint, Json, Output, err, open_store, out, print_json

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Videos, by id.")]
Wait = Annotated[
    float, typer.Option(min=0, max=86_400, help="Seconds to wait for the driver's answer; 0: only give the command.")
]
WAIT = 15.0


def pause(output: Output, wait: Wait = WAIT, endpoint_url: Endpoint = None, as_json: Json = False) -> None:
    """Start no more segments of the run at OUTPUT, until `resume`: also after its driver is started again.

    Segments under way are finished. Gangs that stay idle give their resources back.

        flowcache pause s3://bucket/night
    """
    tell(output, endpoint_url, wait, as_json, "pause")


def resume(
    output: Output,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Videos that are wanted again.")] = None,
    wait: Wait = WAIT,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Let a paused run go on; with ids, let these videos go on, which were cancelled or skipped.

    Where no driver is at work, the next one obeys it.

        flowcache resume s3://bucket/night

        flowcache resume s3://bucket/night cat-7
    """
    tell(output, endpoint_url, wait, as_json, "resume", ids or ())


def cancel(output: Output, ids: Ids, wait: Wait = WAIT, endpoint_url: Endpoint = None, as_json: Json = False) -> None:
    """Give these videos up: nothing more of them is started, their segments under way are ended within half a minute.

    What is committed stays and plays. They stay cancelled in later renders, until `resume OUTPUT ID`.

        flowcache cancel s3://bucket/night cat-7 cat-8
    """
    tell(output, endpoint_url, wait, as_json, "cancel", ids)


def skip(output: Output, ids: Ids, wait: Wait = WAIT, endpoint_url: Endpoint = None, as_json: Json = False) -> None:
    """As cancel, but segments under way are finished.

    Nothing more of these videos is started.

        flowcache skip s3://bucket/night cat-7
    """
    tell(output, endpoint_url, wait, as_json, "skip", ids)


def prioritise(
    output: Output,
    priority: Annotated[int, typer.Argument(min=-1000, max=1000, help="As in rows: higher is rendered earlier.")],
    ids: Ids,
    wait: Wait = WAIT,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Give these videos another priority, whatever their rows say.

    One below 0 is written after `--`, which ends options.

        flowcache prioritise s3://bucket/night 10 cat-7
    """
    tell(output, endpoint_url, wait, as_json, "prioritise", ids, priority)


def add(
    output: Output,
    manifest: Annotated[str, typer.Argument(help="A file here, which is sent along, or a URL that the driver reads.")],
    wait: Wait = 60.0,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Bring rows of a manifest into the run at OUTPUT while it goes on, by the rules of `render --extend`.

    What rows leave open is filled in as the driver's job says.

        flowcache add s3://bucket/night more.jsonl
    """
    tell(output, endpoint_url, wait, as_json, "add", manifest=manifest)


def tell(
    output: str,
    endpoint_url: str | None,
    wait: float,
    as_json: bool,
    verb: Any,
    ids: Sequence[str] = (),
    priority: int | None = None,
    manifest: str | None = None,
) -> None:
    """Give the command, and print what became of it; exit code 2 where it was refused."""
    from flowcache.storage.orders import at_work, became, order

    store = open_store(output, endpoint_url)
    command = order(store, verb, ids, priority, manifest)
    taken = became(store, command, wait)
    refused = taken is not None and taken.outcome == "refused"
    if as_json:
        print_json({"command": asdict(command), "taken": asdict(taken) if taken else None})
    elif taken:
        said = escape("\n".join([f"{command}: {taken.outcome}: {taken.message}", *taken.problems]))
        (err if refused else out).print(said, highlight=False, soft_wrap=True)
    else:
        holder = at_work(store)
        ended = holder is None or holder.ended
        why = "no driver is at work there, the next one obeys it" if ended else "not taken yet, see `flowcache status`"
        out.print(escape(f"{command} is given; {why}"), highlight=False)
    raise typer.Exit(2 if refused else 0)
