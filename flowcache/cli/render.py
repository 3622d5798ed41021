"""`flowcache render`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flowcache.cli.common import Endpoint, Json, err, out, print_json
from flowcache.errors import FlowcacheError


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
    gangs: Annotated[
        int | None,
        typer.Option(min=1, help="Gangs side by side (an autoscaler is asked for them); else as many as fit."),
    ] = None,
    shard_weights: Annotated[
        bool | None, typer.Option(help="Each rank holds a part of the model's weights: for models too large for one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPUs and torch threads of each rank.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp32 or auto: bf16 on GPUs, else fp32.")] = None,
    vae_tiling: Annotated[
        str | None, typer.Option(help="Decode in tiles: on, off or auto: where memory is short.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; else a local Ray is started.")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Start nothing after 07:00, or 2026-11-23T07:00; what is left: exit code 5."),
    ] = None,
    keep_going: Annotated[bool | None, typer.Option(help="Render the good rows, record the bad ones.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try dead-lettered videos again.")] = False,
    log_json: Annotated[bool, typer.Option(help="Progress as JSON lines, for programs.")] = False,
    media: Annotated[Path | None, typer.Option(hidden=True, help="Written by submit: where it put media.")] = None,
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
    from flowcache.inputs.job import merged
    from flowcache.progress.json_lines import JsonProgress
    from flowcache.progress.terminal import progress_for

    spec = merged(
        job,
        manifest=manifest,
        output=output,
        model=model,
        policy=policy,
        gang=gang,
        gangs=gangs,
        shard_weights=shard_weights,
        threads=threads,
        device=device,
        dtype=dtype,
        vae_tiling=vae_tiling,
        address=address,
        until=until,
        keep_going=keep_going,
    )
    try:
        summary = render_requests(
            spec.manifest,
            output=spec.output,
            defaults=spec.row_defaults(),
            options=spec.run_options(retry_failed),
            keep_going=spec.keep_going,
            storage_options={"endpoint_url": endpoint_url} if endpoint_url else {},
            progress=JsonProgress() if log_json else progress_for(err),
            warn=lambda problem: err.print(f"[yellow]warning:[/] {escape(str(problem))}"),
            media=json.loads(media.read_bytes()) if media else None,
        )
    except KeyboardInterrupt:
        raise FlowcacheError("stopped; what is committed stays, and the same command goes on from there") from None
    if as_json:
        print_json({**asdict(summary), "exit_code": summary.exit_code})
    else:
        print_summary(summary)
    raise typer.Exit(summary.exit_code)


def print_summary(summary: Any) -> None:
    chunks = (
        f"{summary.rendered} chunks rendered in {summary.seconds:.0f} s" if summary.rendered else "nothing to render"
    )
    out.print(f"{len(summary.done)} videos done, {chunks}. Playlists: {escape(summary.output)}/media/*/index.m3u8")
    if summary.left:
        left = f"{summary.left} videos with {summary.chunks_left} chunks are left"
        err.print(
            f"[yellow]stopped:[/] {summary.stopped}; {left}, and the same command goes on from there", soft_wrap=True
        )
    for kind, causes in (("failed", summary.failed), ("rejected", summary.rejected)):
        for name, cause in causes.items():
            err.print(f"[red]{kind}:[/] {escape(name)}: {escape(cause)}")
