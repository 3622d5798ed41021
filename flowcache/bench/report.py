"""The files beside the table: `bench.md`, `curve.png` and `bench.html`."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from flowcache.bench.curve import drawing
from flowcache.bench.page import page
from flowcache.bench.run import Asked, Bench
from flowcache.bench.sections import Told, as_markdown, sections
from flowcache.bench.summary import comparisons, lines
from flowcache.bench.table import Row
from flowcache.records import ModelSpec

MARKDOWN, PICTURE, PAGE = "bench.md", "curve.png", "bench.html"


def report(bench: Bench, rows: Sequence[Row], no_cvvdp: str = "") -> str:
    """Writes them, and gives the Markdown. no_cvvdp: why there is no ColorVideoVDP."""
    asked, spec, target = bench.asked, bench.spec, bench.asked.target
    told = Told(
        title=f"flowcache bench {spec.name}",
        text=_head(spec, asked, rows, str(bench.studio.model.transformer.device)),
        target=target,
        how={entry: recipe.told(spec) for entry, recipe in bench.settings},
        left_out=bench.chosen.left_out,
        predicted=bench.predicted,
        no_cvvdp=no_cvvdp,
    )
    every = lines(rows)
    found = sections(told, every, comparisons(rows, target))
    drawn = drawing(every)
    text = as_markdown(found)
    write(bench.folder / MARKDOWN, text.encode())
    write(bench.folder / PICTURE, drawn.png())
    write(bench.folder / PAGE, page(found, drawn.svg()).encode())
    return text


def _head(spec: ModelSpec, asked: Asked, rows: Sequence[Row], device: str) -> str:
    """What was run, so that somebody can run it again."""
    seeds = sorted({row.seed for row in rows})
    calibrated = "with a calibration" if spec.calibrations else "without a calibration"
    threads = f", {torch.get_num_threads()} thread(s)" if device == "cpu" else ""
    return (
        f"{spec.name} {spec.digest[:12]} ({calibrated}), {len(asked.prompts)} prompts of seed {asked.seed} "
        f"(noise {seeds[0]} to {seeds[-1]}), {spec.frames} frames of {spec.width}x{spec.height}, {spec.steps} steps, "
        f"guidance {spec.guidance:g}; target {asked.target}. flowcache {asked.version}, torch {torch.__version__}, "
        f"{platform.machine()}, {device}{threads}, {datetime.now(UTC):%Y-%m-%d}. In brackets: 95 % confidence "
        "intervals, bootstrapped over prompts."
    )


def write(file: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(data)
    os.replace(part, file)
