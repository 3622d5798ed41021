"""`flowcache bench`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flowcache.cli.common import Json, check_device, err, out, print_json
from flowcache.cli.targets import check_here, check_outside, home, make_here
from flowcache.errors import InputError, Problem, printable

if TYPE_CHECKING:
    from flowcache.bench.run import Asked, Bench
    from flowcache.bench.table import Row
    from flowcache.records import ModelSpec

MOST = 2_000_000  # of --seed: each has a thousand of noise
MOST_CHUNKS = 1000


def bench(
    model: Annotated[str, typer.Argument(help="The path of a checkpoint, or a bundled name.")],
    to: Annotated[Path, typer.Option("--out", help="Folder for bench.parquet, bench.md, bench.html and curve.png.")],
    n: Annotated[int, typer.Option("--n", min=1, max=999, help="Prompts, each with noise of its own.")] = 32,
    seed: Annotated[int, typer.Option(min=0, max=MOST, help="Of prompts and noise: another one draws new ones.")] = 0,
    policies: Annotated[
        str,
        typer.Option(
            help="With commas between them: flowcache:0.3, paper:fast, magcache ... or all; kv-recent:8 ... or kv."
        ),
    ] = "all",
    chunks: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_CHUNKS, help="Of each video, denoised as one window; none: a window's."),
    ] = None,
    guidance: Annotated[float | None, typer.Option(min=0, max=50, help="Of each video; none: the model's own.")] = None,
    target: Annotated[
        str, typer.Option(help="Of SSIM and ColorVideoVDP, and what is closest: off, or converged (thrice the steps).")
    ] = "off",
    converged: Annotated[
        bool, typer.Option(help="Compare with converged walks too, each as dear as three of off.")
    ] = True,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with a prompt a line, in place of drawn ones.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Measure policies on one model: what each costs, and how close its videos are to those of `off` and of a
    converged walk with the same noise; of K/V, to those that keep all of them, and how they drift.

    Killed and started again it renders only what is missing in --out; with a larger --n or more --policies, too.
    """
    from flowcache.bench.vdp import color_video_vdp
    from flowcache.families.registry import find, load_model

    spec, to = _as_asked(find(model), chunks, guidance), home(to)
    asked = _asked(spec, n, seed, policies, target, converged, home(prompts) if prompts else None)
    check_here(to, "--out")
    check_outside(to, spec.path, "--out")
    check_device(device)
    make_here(to, "--out")
    metric = color_video_vdp()
    loaded = load_model(model, device, texts=[each.text for each in asked.prompts])
    from flowcache.bench.report import report
    from flowcache.bench.run import Bench

    loaded = replace(loaded, spec=_as_asked(loaded.spec, chunks, guidance))
    made = Bench(loaded, to, asked, None if isinstance(metric, str) else metric)
    rows = _with_progress(made, quiet=as_json)
    text = report(made, rows, metric if isinstance(metric, str) else "")
    if as_json:
        print_json(_told(rows, to))
    else:
        out.print(text, markup=False, highlight=False)


def _as_asked(spec: "ModelSpec", chunks: int | None, guidance: float | None) -> "ModelSpec":
    from flowcache.bench.recipe import lengthened

    spec = lengthened(spec, chunks) if chunks else spec
    return spec if guidance is None else replace(spec, guidance=guidance)


def _asked(
    spec: "ModelSpec", n: int, seed: int, policies: str, target: str, converged: bool, file: Path | None
) -> "Asked":
    """InputError, before any weights are loaded."""
    from flowcache import __version__
    from flowcache.bench.names import entries
    from flowcache.bench.prompts import draw, read
    from flowcache.bench.recipes import chosen
    from flowcache.bench.run import Asked, placeholder

    if target != "off" and target != "converged":
        raise InputError([Problem("--target", "", f"got {target[:80]!r}; accepted: 'off' or 'converged'")])
    if target == "converged" and not converged:
        raise InputError([Problem("--no-converged", "", "does not go with --target converged; accepted: --target off")])
    named, own = entries(policies)
    try:
        found = chosen(named, own, spec, placeholder(spec), target)
    except ValueError as error:
        raise InputError([Problem("--policies", "", str(error))]) from None
    if not found.recipes:
        raise InputError([Problem("--policies", "", f"{each.label}: {why}") for each, why in found.left_out.items()])
    drawn = draw(spec, n, seed) if file is None else read(file, n, seed)
    return Asked(drawn, seed, named, own, target, converged, __version__)


def _with_progress(made: "Bench", quiet: bool) -> "list[Row]":
    """On stderr: a bar on a terminal, a line for each setting in a log."""
    if quiet:
        return made.run(lambda done, total, label: None)

    def shown(label: str) -> str:
        return escape(printable(label))

    if not err.is_terminal:
        return made.run(lambda done, total, label: err.print(f"{done}/{total} {shown(label)}", soft_wrap=True))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("", total=None)
        return made.run(
            lambda done, total, label: progress.update(task, completed=done, total=total, description=shown(label))
        )


def _told(rows: "list[Row]", to: Path) -> dict[str, Any]:
    from flowcache.bench.summary import lines

    return {
        "out": str(to),
        "settings": [asdict(line) | {"setting": line.entry.label} for line in lines(rows)],
    }
