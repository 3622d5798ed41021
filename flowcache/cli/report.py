"""`flowcache report`."""

from pathlib import Path
from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.cli.targets import check_file, home, write


def report(
    output: Output,
    to: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    base_url: Annotated[
        str | None, typer.Option(help="Where browsers find the output (https://...), for links to its media.")
    ] = None,
    videos: Annotated[int, typer.Option(min=0, help="Videos shown in full; the others are rows of a table.")] = 100,
    embed: Annotated[int, typer.Option(min=0, help="MiB of each video that the page itself holds.")] = 2,
    embed_all: Annotated[int, typer.Option(min=0, help="MiB of all videos that the page itself holds.")] = 32,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """One HTML page of a run: pictures, videos, what was computed and reused, K/V, timings, failures.

    It needs nothing beside itself and runs no script. Works while the run goes on, too.
    """
    from flowcache.report.page import Limits, link_base, report_page

    to = home(to)
    check_file(to)
    store = open_store(output, endpoint_url)
    limits = Limits(cards=videos, video_bytes=embed << 20, page_bytes=embed_all << 20)
    page = report_page(store, link_base(store, to, base_url), limits).encode(errors="backslashreplace")
    write(to, page)
    if as_json:
        print_json({"report": str(to), "bytes": len(page)})
    else:
        out.print(f"report: {to}", markup=False)
