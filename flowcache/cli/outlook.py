"""What `render --dry-run` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from flowcache.cli.common import err, out

if TYPE_CHECKING:
    from flowcache.storage.outlook import Outlook

SHOWN = 5  # ids of a line
MEANS = {
    "new": "rendered",
    "corrected": "rendered as the row stands now; of what it was nothing is kept",
    "labelled": "gone on with; labels and priority follow the row",
    "begun": "gone on with",
    "waiting": "rendered",
    "done": "there, not touched",
    "dead": "given up before; tried again with --retry-failed",
    "refused": "not rendered: they differ from what is",
}


def print_outlook(found: "Outlook") -> None:
    """A line for each state of rows, then what it takes and what is refused."""
    out.print(f"[bold]{escape(found.output)}[/]: {escape(run_line(found))}", highlight=False)
    table = Table("rows", "", "what", "ids", box=None)
    for state, means in MEANS.items():
        if ids := found.of(state):  # type: ignore[arg-type]
            table.add_row(f"{len(ids):,}", state, means, escape(some(ids)))
    if found.left:
        table.add_row(
            f"{len(found.left):,}", "left", "of the output, not in this manifest: they stay", escape(some(found.left))
        )
    if found.rejected:
        table.add_row(f"{len(found.rejected):,}", "rejected", "faults, left out by --keep-going", "")
    out.print(table)
    totals = (f"{found.total(name):,} {name}" for name in ("segments", "chunks", "frames"))
    out.print(f"to render: {', '.join(totals)}. Nothing was started, nothing written.", highlight=False)
    for problem in (*found.refused, *found.rejected):
        err.print(f"[red]refused:[/] {escape(str(problem))}", soft_wrap=True)


def run_line(found: "Outlook") -> str:
    if found.replaces:
        return f"run {found.replaces}, of which nothing is committed, would give way to a new one"
    if found.run_id is None:
        return "a new run"
    return f"run {found.run_id}, generation {found.generation}"


def some(ids: Sequence[str]) -> str:
    more = len(ids) - SHOWN
    return ", ".join(ids[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
