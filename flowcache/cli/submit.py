"""`flowcache submit`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flowcache.cli import options
from flowcache.cli.common import Endpoint, Json, err, print_json
from flowcache.cli.options import AllowPrivateMedia, RetryFailed
from flowcache.cli.selecting import Chosen, check_as, selecting, written
from flowcache.errors import FlowcacheError


@selecting
def submit(
    job: Annotated[Path, typer.Argument(help="Job spec (YAML).")],
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard: http://head:8265.")
    ],
    manifest: Annotated[list[str] | None, typer.Option(help="In place of the job's; can be repeated.")] = None,
    output: Annotated[str | None, typer.Option(help="In place of the job's: a URL, or a path all nodes share.")] = None,
    follow: Annotated[bool, typer.Option(help="Show the job's log and end with its exit code.")] = True,
    extend: options.Extend = False,
    as_: options.As = None,
    retry_failed: RetryFailed = False,
    allow_private_media: AllowPrivateMedia = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
    *,
    chosen: Chosen,
) -> None:
    """Run a job on a Ray cluster and follow it to its end, through the cluster's job API.

    Exit codes are those of `flowcache render`: 3, some videos failed; 5, stopped with videos left (deadline, SIGTERM);
    1, stopped, killed or lost; 2, bad input.

    Submitting the same job again follows the one that runs; after a failure it starts anew and goes on where the
    store ends. Ctrl-C stops following, not the job. flowcache must be installed on the cluster.

        flowcache submit jobs/overnight-skyreels.yaml --address http://head:8265 --output s3://bucket/night
    """
    from flowcache.inputs.job import merged
    from flowcache.inputs.output_url import check_endpoint
    from flowcache.runtime import submit as jobs

    check_endpoint(endpoint_url)  # it would stand in the cluster's list of jobs
    check_as(as_, extend)
    passed = ["--retry-failed"] * retry_failed + (["--endpoint-url", endpoint_url] if endpoint_url else [])
    passed += [*chosen.words, *written({"--extend": extend, "--as": as_})]
    spec = merged(job, manifest=manifest or None, output=output, allow_private_media=allow_private_media)
    submission = jobs.prepare(spec, passed)
    client = jobs.connect(address)
    name, started = jobs.submit(client, submission)
    err.print(f"{name} {'submitted' if started else 'was submitted before'}", highlight=False)
    if not follow:
        if as_json:
            print_json({"submission_id": name, "started": started})
        return
    log = sys.stderr if as_json else sys.stdout
    try:
        ended = jobs.follow(client, name, lambda text: (log.write(text), log.flush()))
    except KeyboardInterrupt:
        raise FlowcacheError(
            f"no longer followed; {name} goes on. The same command follows it again, and "
            f"`ray job stop {name} --address {address}` ends it"
        ) from None
    code = jobs.exit_code(ended)
    err.print(f"{name} {ended.status.lower()}, exit code {code}: {ended.message}", highlight=False, markup=False)
    if as_json:
        print_json({"submission_id": name, "started": started, "status": ended.status, "exit_code": code})
    raise typer.Exit(code)
