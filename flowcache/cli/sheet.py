"""`flowcache sheet`."""

from pathlib import Path
from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.cli.targets import check_file, home, write

MOVING = {".webp": "WEBP", ".gif": "GIF"}


def sheet(
    output: Output,
    to: Annotated[Path, typer.Option(help="File to write: PNG, or moving where it ends in .webp or .gif.")] = Path(
        "contact-sheet.png"
    ),
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """A contact sheet: ten frames of every video, with its prompts; or, as .webp or .gif, the first videos playing."""
    from flowcache.report.sheet import contact_sheet, moving_sheet

    to = home(to)
    check_file(to)
    store, form = open_store(output, endpoint_url), MOVING.get(to.suffix.lower())
    write(to, moving_sheet(store, form) if form else contact_sheet(store))
    if as_json:
        print_json({"sheet": str(to)})
    else:
        out.print(f"contact sheet: {to}", markup=False)
