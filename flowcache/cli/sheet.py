"""`flowcache sheet`."""

from pathlib import Path
from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.cli.targets import check_file, write


def sheet(
    output: Output,
    to: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("contact-sheet.png"),
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """A contact sheet (PNG): ten frames of every video, with its prompts."""
    from flowcache.report.sheet import contact_sheet

    check_file(to)
    write(to, contact_sheet(open_store(output, endpoint_url)))
    if as_json:
        print_json({"sheet": str(to)})
    else:
        out.print(f"contact sheet: {to}", markup=False)
