"""The command line: parse, call, print."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flowcache.errors import FlowcacheError, InputError, Problem

EXIT_CODES = """
Exit codes: 0 done; 2 bad input and nothing was started; 3 finished, but some videos failed or rows were
rejected; 4 verify found damage; 1 anything else (run the same command again to go on).
"""

app = typer.Typer(
    help=f"Overnight bulk rendering of long AI videos.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
err = Console(stderr=True)
out = Console(soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint-url", help="S3 endpoint, for stores other than AWS (else AWS_ENDPOINT_URL).")
]
Output = Annotated[str, typer.Argument(help="Folder or URL (s3://bucket/prefix) that a run writes to.")]


def open_store(url: str, endpoint: str | None) -> Any:
    from flowcache.storage.objects import Store

    return Store(url, **({"endpoint_url": endpoint} if endpoint else {}))


@app.command()
def render(
    manifest: Annotated[str | None, typer.Argument(help="JSONL, CSV or Parquet; a path or any fsspec URL.")] = None,
    output: Annotated[str | None, typer.Option(help="Folder or URL to write to. Given again: goes on there.")] = None,
    job: Annotated[Path | None, typer.Option(help="Job spec (YAML); options given here override it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="For rows without one: a bundled name or checkpoint folder.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="For rows without one: off, dense, paper, paper:fast, flowcache, teacache ..."),
    ] = None,
    gang: Annotated[int | None, typer.Option(min=1, help="Ranks that render one video together.")] = None,
    gangs: Annotated[int | None, typer.Option(min=1, help="Gangs side by side; else as many as fit.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPUs and torch threads of each rank.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else a local Ray is started.")] = None,
    keep_going: Annotated[bool | None, typer.Option(help="Render the good rows, record the bad ones.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try dead-lettered videos again.")] = False,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Render a manifest: every video that is not yet complete at the output.

    All faults of the manifest are reported before anything starts. Killed or stopped, run it again: what is
    committed stays, what is missing is rendered, and the bytes are those of an undisturbed run.

        flowcache render manifests/demo.jsonl --output runs/demo --policy paper

        flowcache render s3://bucket/night.parquet --output s3://bucket/night --gang 4 --address auto
    """
    from flowcache.api import render as render_requests
    from flowcache.batch.progress import progress_for
    from flowcache.job import merged

    spec = merged(
        job,
        manifest=manifest,
        output=output,
        model=model,
        policy=policy,
        gang=gang,
        gangs=gangs,
        threads=threads,
        device=device,
        address=address,
        keep_going=keep_going,
    )
    try:
        summary = render_requests(
            spec.manifest,
            output=spec.output,
            defaults=spec.row_defaults(),
            options=run_options(spec, retry_failed),
            keep_going=spec.keep_going,
            storage_options={"endpoint_url": endpoint_url} if endpoint_url else {},
            progress=progress_for(err),
            warn=lambda problem: err.print(f"[yellow]warning:[/] {escape(str(problem))}"),
        )
    except KeyboardInterrupt:
        raise FlowcacheError("stopped; what is committed stays, and the same command goes on from there") from None
    if as_json:
        print_json({**asdict(summary), "exit_code": summary.exit_code})
    else:
        print_summary(summary)
    raise typer.Exit(summary.exit_code)


@app.command()
def plan(
    manifest: Annotated[str | None, typer.Argument(help="JSONL, CSV or Parquet; a path or any fsspec URL.")] = None,
    job: Annotated[Path | None, typer.Option(help="Job spec (YAML); options given here override it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="For rows without one: a bundled name or checkpoint folder.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="For rows without one, as in render.")] = None,
    as_json: Json = False,
) -> None:
    """What a manifest costs before anything is rendered: segments, chunk forwards, FLOPs, K/V memory.

    Counted by walking the schedule without weights: of each model only its configuration is read.
    """
    from flowcache.api import plan as plan_requests
    from flowcache.job import merged

    # Nothing is written, so a manifest alone will do.
    spec = merged(job, manifest=manifest, model=model, policy=policy, **({} if job else {"output": "unused"}))
    cost = plan_requests(spec.manifest, defaults=spec.row_defaults())
    if as_json:
        print_json(asdict(cost))
        return
    table = Table("", "chunk forwards", "PFLOPs", "K/V of a window", box=None)
    rows = {f"policy {name}, without reuse": work for name, work in cost.without_reuse.items()}
    rows |= {"as asked, at most": cost.most, "as asked, at least": cost.least}
    for name, work in rows.items():
        table.add_row(
            escape(name), f"{work.forwards:,}", f"{work.flops / 1e15:,.4g}", f"{work.kv_bytes / 2**20:,.1f} MiB"
        )
    out.print(f"{cost.videos} videos, {cost.segments} segments, {cost.chunks} chunks, {cost.frames:,} frames")
    out.print(table)


def run_options(spec: Any, retry_failed: bool) -> Any:
    from flowcache.batch.options import RunOptions

    return RunOptions(
        gang=spec.gang,
        gangs=spec.gangs,
        threads=spec.threads,
        device=spec.device,
        address=spec.address,
        retries=spec.retries,
        infra_retries=spec.infra_retries,
        stall=spec.segment_timeout,
        retry_failed=retry_failed,
    )


def print_summary(summary: Any) -> None:
    chunks = (
        f"{summary.rendered} chunks rendered in {summary.seconds:.0f} s" if summary.rendered else "nothing to render"
    )
    out.print(f"{len(summary.done)} videos done, {chunks}. Playlists: {escape(summary.output)}/media/*/index.m3u8")
    for kind, causes in (("failed", summary.failed), ("rejected", summary.rejected)):
        for name, cause in causes.items():
            err.print(f"[red]{kind}:[/] {escape(name)}: {escape(cause)}")


@app.command()
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
    states = ("done", "running", "waiting", "partial", "failed")
    counts = ", ".join(f"{report.count(state)} {state}" for state in states if report.count(state))
    rejected = f", {report.rejected} rejected rows" if report.rejected else ""
    out.print(f"run {report.run_id}: {counts}{rejected}; {report.reuse_rate:.0%} of steps reused")


@app.command()
def verify(
    output: Output,
    decode: Annotated[bool, typer.Option(help="Decode every chunk and count its frames.")] = True,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Re-hash everything, decode every chunk, count frames, compare with the playlists and Parquet.

    Exit code 4 when anything is damaged or missing; each damage is named.
    """
    from flowcache.storage.verify import verify as verify_store

    report = verify_store(open_store(output, endpoint_url), decode=decode)
    if as_json:
        print_json({**asdict(report), "sound": report.sound})
    else:
        for problem in report.problems:
            err.print(f"[red]damaged:[/] {escape(str(problem))}")
        counted = ", ".join(f"{number} {name}" for name, number in report.counts.items())
        out.print(f"{'sound' if report.sound else f'{len(report.problems)} problems'}: {counted}")
    raise typer.Exit(0 if report.sound else 4)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="A bundled name or a checkpoint folder; none: list all. Or: check.")
    ] = None,
    path: Annotated[str | None, typer.Argument(help="After check: the checkpoint folder to look through.")] = None,
    as_json: Json = False,
) -> None:
    """The bundled models, or what one model can render: sizes, lengths, defaults, policies.

    `flowcache models check PATH` looks through a checkpoint: its layout, size and precision, everything that is
    missing or damaged (exit code 2), and the memory that each gang size needs.
    """
    from flowcache.models.registry import bundled, find

    if name == "check" and path is not None:
        check_model(path, as_json)
        return
    if path is not None:
        raise InputError([Problem("models", "", f"got {name} {path}; accepted: one NAME, or check PATH")])
    specs = [find(each) for each in ([name] if name else bundled())]
    if as_json:
        print_json([asdict(spec) for spec in specs])
        return
    for spec in specs:
        print_spec(spec)


def print_spec(spec: Any) -> None:
    from flowcache.cache.settings import POLICIES

    fresh = [spec.first_chunk_frames + k * spec.chunk_frames for k in range(3)]
    sizes = ", ".join(f"{w}x{h}" for w, h in spec.sizes) or f"multiples of {spec.size_step}"
    rows = {
        "family": spec.family,
        "digest": spec.digest[:16],
        "sizes": sizes,
        "lengths": f"{fresh[0]}, {fresh[1]}, {fresh[2]} ... frames; a continuation {spec.chunk_frames}, "
        f"{2 * spec.chunk_frames} ...",
        "default": f"{spec.width}x{spec.height}, {spec.frames} frames at {spec.fps} fps, {spec.steps} steps, "
        f"guidance {spec.guidance:g}",
        "policies": ", ".join(POLICIES) + (f"; presets {', '.join(spec.reuse)}" if spec.reuse else ""),
        "words": " ".join(spec.vocabulary) or "any",
    }
    print_rows(spec.name, rows)


def print_rows(title: str, rows: dict[str, str]) -> None:
    table = Table(box=None, show_header=False)
    for key, value in rows.items():
        table.add_row(key, escape(value))
    out.print(f"[bold]{escape(title)}[/]")
    out.print(table)


def check_model(path: str, as_json: bool) -> None:
    """`flowcache models check PATH`."""
    from flowcache.models.check import check, memory
    from flowcache.models.registry import folder_of
    from flowcache.parallel.apply import degrees

    report = check(folder_of(path))
    needs = {}
    if report.spec and report.config:
        spec = report.spec
        tokens = spec.chunk * (spec.width // spec.size_step) * (spec.height // spec.size_step)
        needs = {ranks: memory(spec, report.config, ranks) for ranks in degrees(spec.heads, tokens) if ranks <= 16}
    if as_json:
        parts = {name: asdict(part) for name, part in report.parts.items()}
        memories = {ranks: asdict(need) | {"total": need.total} for ranks, need in needs.items()}
        problems = [asdict(problem) for problem in report.problems]
        print_json({"family": report.family, "layout": report.layout, "parts": parts, "problems": problems,
                    "bytes_per_rank": memories, "exit_code": 2 if problems else 0})  # fmt: skip
    else:
        rows = {"family": report.family or "unknown", "layout": report.layout or "unknown"}
        rows |= {name: f"{part.numbers:,} numbers, {part.precision}" for name, part in report.parts.items()}
        rows |= {f"gang of {ranks}": str(need) for ranks, need in needs.items()}
        print_rows(path, rows)
        for problem in report.problems:
            err.print(f"[red]damaged:[/] {escape(str(problem))}", soft_wrap=True)
    raise typer.Exit(2 if report.problems else 0)


@app.command()
def export(
    output: Output,
    video: Annotated[list[str] | None, typer.Argument(help="Video ids; none: every finished video.")] = None,
    to: Annotated[str, typer.Option(help="Folder or URL for the files.")] = "export",
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """One plain MP4 for each video, joined from its chunks without re-encoding."""
    from flowcache.storage.commits import read_commits
    from flowcache.storage.export import export as export_video

    store = open_store(output, endpoint_url)
    names = video or sorted(read_commits(store).done)
    if not names:
        raise InputError([Problem(output, "", "holds no finished video yet")])
    files = {f"{to.rstrip('/')}/{name}.mp4": name for name in names}
    sizes = {file: export_video(store, name, file) for file, name in files.items()}
    if as_json:
        print_json(sizes)
    for file, size in {} if as_json else sizes.items():
        out.print(f"{file} ({size:,} bytes)", markup=False)


@app.command()
def sheet(
    output: Output,
    to: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("contact-sheet.png"),
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """A contact sheet (PNG): ten frames of every video, with its prompts."""
    from flowcache.report.sheet import contact_sheet

    to.write_bytes(contact_sheet(open_store(output, endpoint_url)))
    if as_json:
        print_json({"sheet": str(to)})
    else:
        out.print(f"contact sheet: {to}", markup=False)


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def fail(error: FlowcacheError, as_json: bool) -> int:
    problems = [asdict(problem) for problem in error.problems] if isinstance(error, InputError) else []
    if as_json:
        print_json({"error": str(error), "problems": problems, "exit_code": error.exit_code})
    else:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
    return error.exit_code


def main() -> None:
    """Entry point: deliberate errors become a message and an exit code, never a traceback."""
    try:
        app()
    except FlowcacheError as error:
        sys.exit(fail(error, "--json" in sys.argv))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        sys.exit(1)


if __name__ == "__main__":
    main()
