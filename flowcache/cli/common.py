"""What the commands share: options, consoles, the store, printing."""

import json
import re
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flowcache.errors import InputError, Problem

err = Console(stderr=True)
out = Console(soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url", help="S3 endpoint of output and inputs, for stores other than AWS (else AWS_ENDPOINT_URL)."
    ),
]
Output = Annotated[str, typer.Argument(help="Folder or URL (s3://bucket/prefix) that a run writes to.")]


def open_store(url: str, endpoint: str | None) -> Any:
    from flowcache.inputs.output_url import check_root
    from flowcache.storage.objects.store import Store

    check_root(url, typed=True)
    return Store(url, **({"endpoint_url": endpoint} if endpoint else {}))


def check_device(device: str) -> None:
    """InputError where this machine has no such device to compute on."""
    import torch

    if device != "cpu" and not re.fullmatch(r"cuda(?::\d{1,3})?", device):
        raise InputError([Problem("--device", "", f"got {device[:80]!r}; accepted: cpu, cuda or one as cuda:1")])
    if device != "cpu" and int(device.partition(":")[2] or 0) >= (count := torch.cuda.device_count()):
        raise InputError([Problem("--device", "", f"got {device!r}, and this machine has {count} GPUs; accepted: cpu")])


def print_rows(title: str, rows: dict[str, str]) -> None:
    table = Table(box=None, show_header=False)
    for key, value in rows.items():
        table.add_row(key, escape(value))
    out.print(f"[bold]{escape(title)}[/]")
    out.print(table)


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
