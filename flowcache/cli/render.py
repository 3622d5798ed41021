"""`flowcache render`."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.markup import escape

from flowcache.cli import options
from flowcache.cli.common import Endpoint, Json, err, out, print_json
from flowcache.cli.selecting import Chosen, check_as, selecting
from flowcache.errors import AtWork, FlowcacheError, InputError

LOOK_AGAIN = 120.0  # seconds: networks, names and roles of a new pod are there by then


@selecting
def render(
    manifest: options.Manifest = None,
    output: options.Output = None,
    job: options.Job = None,
    model: options.Model = None,
    policy: options.Policy = None,
    gang: options.Gang = None,
    gangs: options.Gangs = None,
    shard_weights: options.ShardWeights = None,
    threads: options.Threads = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weights: options.Weights = None,
    vae_dtype: options.VaeDtype = None,
    vae_tiling: options.VaeTiling = None,
    compile: options.Compile = None,
    watermark: options.Watermark = None,
    watermark_payload: options.WatermarkPayload = None,
    finish: options.Finish = None,
    address: options.Address = None,
    until: options.Until = None,
    wait_for_gpus: options.WaitForGpus = None,
    succeed_with: options.SucceedWith = None,
    keep_going: options.KeepGoing = None,
    allow_private_media: options.AllowPrivateMedia = None,
    webhook: options.Webhook = None,
    extend: options.Extend = False,
    as_: options.As = None,
    dry_run: options.DryRun = False,
    retry_failed: options.RetryFailed = False,
    repair: options.Repair = False,
    stop_on_bad_input: options.StopOnBadInput = False,
    progress: options.Progress = "auto",
    log_json: options.LogJson = False,
    media: options.Media = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
    *,
    chosen: Chosen,
) -> None:
    """Render a manifest: every video not yet complete at the output.

    Killed or stopped, the same command goes on.

        flowcache render manifests/demo.jsonl --output runs/demo --policy paper

        flowcache render s3://bucket/night.parquet --output s3://bucket/night --gang 4 --address auto
    """
    check_as(as_, extend)
    spec = job_of(
        job, manifest=manifest or None, output=output, model=model, policy=policy, gang=gang, gangs=gangs,
        shard_weights=shard_weights, threads=threads, device=device, dtype=dtype, weights=weights, address=address,
        vae_dtype=vae_dtype, vae_tiling=vae_tiling, compile=compile, watermark=watermark, finish=finish, until=until,
        watermark_payload=watermark_payload, wait_for_gpus=wait_for_gpus, succeed_with=succeed_with or None,
        keep_going=keep_going, allow_private_media=allow_private_media, webhook=webhook,
    )  # fmt: skip
    asked = Asked(endpoint_url, retry_failed, media, chosen.rows, extend, as_)
    if dry_run:
        show_outlook(spec, asked, as_json)
    end(spec, partial(run_job, spec, asked, "json" if log_json else progress, repair), as_json, stop_on_bad_input)


def job_of(job: Path | None, **given: Any) -> Any:
    """The job with these options on top."""
    from flowcache.inputs.job import merged

    return merged(job, **given)


def believed(run: Callable[[], Any]) -> Any:
    """What `run` comes to; bad input is believed when it is met twice, since a store that is away looks the same."""
    try:
        return run()
    except InputError as error:
        err.print(f"{escape(str(error))}\nlooking again in {LOOK_AGAIN:.0f} s", soft_wrap=True, highlight=False)
        time.sleep(LOOK_AGAIN)
        return run()


def end(spec: Any, run: Callable[[], Any], as_json: bool, stop_on_bad_input: bool) -> NoReturn:
    """Print how the run ended; its exit code, or 0 where the job says that this one is a success."""
    try:
        summary = believed(run) if stop_on_bad_input else run()
    except AtWork as error:
        if error.exit_code not in spec.succeed_with:
            raise
        err.print(escape(str(error)), soft_wrap=True)
        raise typer.Exit(0) from None
    code = summary.code(spec.succeed_with)
    if as_json:
        print_json({**asdict(summary), "exit_code": code})
    else:
        print_summary(summary)
    if code != summary.exit_code:
        err.print(f"exit code {code} in place of {summary.exit_code}, as succeed_with says", highlight=False)
    raise typer.Exit(code)


@dataclass(frozen=True)
class Asked:
    """Options beside the job's."""

    endpoint: str | None
    retry_failed: bool
    media: Path | None
    selection: Any
    extend: bool
    rename: str | None

    def settings(self, spec: Any) -> dict[str, Any]:
        """What `api.render` and `api.preview` are given."""
        from flowcache.inputs.manifest import media_table

        return {
            "output": spec.output,
            "defaults": spec.row_defaults(),
            "options": spec.run_options(self.retry_failed),
            "keep_going": spec.keep_going,
            "storage_options": {"endpoint_url": self.endpoint} if self.endpoint else {},
            "warn": lambda problem: err.print(f"[yellow]warning:[/] {escape(str(problem))}"),
            "media": media_table(self.media) if self.media else None,
            "extend": self.extend,
            "rename": self.rename,
            "selection": self.selection,
            "webhook": spec.webhook,
        }


def run_job(spec: Any, asked: Asked, how: Any = "auto", repair: bool = False) -> Any:
    """The Summary of what a JobSpec asks for. Ctrl-C becomes an error that says how to go on."""
    from flowcache.api import render as render_requests
    from flowcache.inputs.sources import Manifests
    from flowcache.progress.terminal import progress_for
    from flowcache.runtime.started_as import started_as

    settings = asked.settings(spec)
    settings["options"] = replace(settings["options"], started_as=started_as())
    progress = progress_for(err, how)
    try:
        return render_requests(Manifests(spec.manifest), progress=progress, repair=repair, **settings)
    except KeyboardInterrupt:
        raise FlowcacheError("stopped; what is committed stays, and the same command goes on from there") from None


def show_outlook(spec: Any, asked: Asked, as_json: bool) -> NoReturn:
    """What would be done; ends with the exit code that bad input has, where it would be refused."""
    from flowcache.api import preview
    from flowcache.cli.outlook import print_outlook
    from flowcache.inputs.sources import Manifests

    found = preview(Manifests(spec.manifest), **asked.settings(spec))
    code = 2 if found.refused else 0
    if as_json:
        print_json({**asdict(found), "exit_code": code})
    else:
        print_outlook(found)
    raise typer.Exit(code)


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
    for name, how in summary.cancelled.items():
        err.print(f"{escape(name)}: {escape(how)}", highlight=False)
    for kind, causes in (("failed", summary.failed), ("rejected", summary.rejected)):
        for name, cause in causes.items():
            err.print(f"[red]{kind}:[/] {escape(name)}: {escape(cause)}")
