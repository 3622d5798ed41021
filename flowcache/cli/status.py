"""`flowcache status`."""

from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json


def status(output: Output, endpoint_url: Endpoint = None, as_json: Json = False) -> None:
    """How far a run is, read from its store alone: while it goes on, or after."""
    from flowcache.storage.status import status as read_status

    report = read_status(open_store(output, endpoint_url))
    if as_json:
        print_json(asdict(report))
        return
    table = Table("video", "state", "segments", "chunks", "frames", "reused", "error", box=None)
    for video in report.videos:
        steps = video.steps_computed + video.steps_reused
        table.add_row(
            video.video_id,
            video.state,
            f"{video.segments}/{video.segments_total}",
            f"{video.chunks}/{video.chunks_total}",
            f"{video.frames}/{video.frames_total}",
            f"{video.steps_reused / steps:.0%}" if steps else "-",
            escape(video.error or ""),
        )
    out.print(table)
    states = ("done", "running", "waiting", "partial", "dead")
    counts = ", ".join(f"{report.count(state)} {state}" for state in states if report.count(state))
    rejected = f", {report.rejected} rejected rows" if report.rejected else ""
    out.print(f"run {report.run_id}: {counts}{rejected}; {report.reuse_rate:.0%} of steps reused")
