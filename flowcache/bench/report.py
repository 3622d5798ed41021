"""The files beside the table: `bench.md`, `curve.png` and `bench.html`."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from flowcache.bench.curve import drawing
from flowcache.bench.kv_sections import kv_comparisons, kv_sections
from flowcache.bench.page import page
from flowcache.bench.run import Bench
from flowcache.bench.sections import Told, as_markdown, sections
from flowcache.bench.summary import comparisons, lines
from flowcache.bench.table import Row
from flowcache.models.whole_files import whole

MARKDOWN, PICTURE, PAGE = "bench.md", "curve.png", "bench.html"


def report(bench: Bench, rows: Sequence[Row], no_cvvdp: str = "") -> str:
    """Writes them, and gives the Markdown. no_cvvdp: why there is no ColorVideoVDP."""
    spec, target = bench.spec, bench.asked.target
    told = Told(
        title=f"flowcache bench {spec.name}",
        text=_head(bench, rows),
        target=target,
        how={entry: recipe.told(spec) for entry, recipe in bench.settings},
        left_out=bench.chosen.left_out,
        predicted=bench.predicted,
        no_cvvdp=no_cvvdp,
    )
    every = lines(rows)
    steps = [line for line in every if not line.entry.keeps]
    more = kv_sections(every, kv_comparisons(rows, every), no_cvvdp)
    found = sections(told, steps, comparisons(rows, target), more)
    drawn = drawing(every)
    text = as_markdown(found)
    write(bench.folder / MARKDOWN, text.encode())
    write(bench.folder / PICTURE, drawn.png())
    write(bench.folder / PAGE, page(found, drawn.svg()).encode())
    return text


def _head(bench: Bench, rows: Sequence[Row]) -> str:
    """What was run, so that somebody can run it again."""
    spec, asked, device = bench.spec, bench.asked, str(bench.studio.model.transformer.device)
    chunks = bench.settings[0][1].chunks(spec)
    seeds = sorted({row.seed for row in rows})
    calibrated = "with a calibration" if spec.calibrations else "without a calibration"
    threads = f", {torch.get_num_threads()} thread(s)" if device == "cpu" else ""
    return (
        f"{spec.name} {spec.digest[:12]} ({calibrated}), {len(asked.prompts)} prompts of seed {asked.seed} "
        f"(noise {seeds[0]} to {seeds[-1]}), {spec.frames} frames of {spec.width}x{spec.height}, {chunks} chunks, "
        f"{spec.steps} steps, guidance {spec.guidance:g}; target {asked.target}. flowcache {asked.version}, "
        f"torch {torch.__version__}, {platform.machine()}, {device}{threads}, {datetime.now(UTC):%Y-%m-%d}. "
        "In brackets: 95 % confidence intervals, bootstrapped over prompts."
    )


def write(file: Path, data: bytes) -> None:
    """Whole or not at all. FlowcacheError where that fails."""
    with whole(file) as part:
        part.write_bytes(data)
