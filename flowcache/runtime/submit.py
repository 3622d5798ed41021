"""A job handed to a running cluster through Ray's job API, followed to its end.

What is sent is a working directory: the job file, and where the manifest lies on this machine, it and the pictures and
videos beside it. Ray puts that directory on the Python path of every process of the job, so nothing in it may be
importable, whatever a manifest names: all lies in one folder that no import can name, under names made here, and only
what opens as a picture or video is taken from beside the manifest.

Submitting the same again finds the job that runs or succeeded; only after a failure a new one starts.
"""

import asyncio
import hashlib
import io
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import yaml
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from flowcache.errors import FlowcacheError, InputError, MediaError, Problem, UnreadableError
from flowcache.families.registry import bundled
from flowcache.inputs.given import Given
from flowcache.inputs.hls import collect, is_playlist
from flowcache.inputs.job import JobSpec
from flowcache.inputs.lines import Line
from flowcache.inputs.listing import is_folder, is_pattern
from flowcache.inputs.manifest import MEDIA, refusal
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.sources import STDIN, ending
from flowcache.inputs.told import Told
from flowcache.inputs.urls import cause, resolve

LIMIT = 100 << 20  # bytes of all that is sent; Ray holds it in the head's memory
DATA = "flowcache-data"  # all that is sent lies in it; a name with a dash cannot be imported
JOB, TABLE = f"{DATA}/job.yaml", f"{DATA}/media.json"  # the table: where media lie beside the manifest, by their names
# No process of the job puts its current or its script's folder on the path by itself.
ISOLATED = {"PYTHONSAFEPATH": "1"}
FAULTS = (OSError, RuntimeError, AuthenticationError)  # that Ray's client raises: no connection, an answer it can't use
QUIET = 120.0  # seconds without a line after which the log's connection is made anew: a dropped one may stay silent
POLL = 1.0  # seconds between two looks at a job whose log has ended or cannot be read
PATIENCE = 60.0  # seconds for which a head may not answer, or have no agent for jobs yet


@dataclass(frozen=True)
class Submission:
    """`name`: of the job's content, the same for the same job. `files`: of its working directory, by relative path."""

    name: str
    files: dict[str, bytes]
    entrypoint: str


def prepare(spec: JobSpec, options: Sequence[str] = ()) -> Submission:
    """What to send. `options`: more of `flowcache render`'s. InputError where the cluster could not know what is meant:
    an output or model by a relative path, a manifest that is neither here nor at a URL."""
    problems = [
        Problem("job", field, f"got the relative path {value!r}; accepted by submit: {accepted}")
        for field, value, accepted in (
            ("output", spec.output, "a URL such as s3://bucket/prefix, or an absolute path that all nodes share"),
            ("model", spec.model, f"{', '.join(bundled())}, or the absolute path of a folder on every node"),
        )
        if not (_is_url(value) or Path(value).is_absolute() or (field == "model" and value in bundled()))
    ]
    files: dict[str, bytes] = {}
    if not all(map(_is_url, spec.manifest)):
        name = next(name for name in spec.manifest if not _is_url(name))
        if len(spec.manifest) > 1 or name == STDIN or is_folder(name) or is_pattern(name):
            accepted = "one file, or URLs that the cluster can read"
            problems.append(Problem("job", "manifest", f"got {name!r}; accepted by submit: {accepted}"))
            raise InputError(problems)
        manifest = Path(os.path.expanduser(name))
        files, faults = _beside(manifest)
        problems += faults
        spec = spec.model_copy(update={"manifest": (_manifest_name(manifest),)})
    if problems:
        raise InputError(problems)
    # Ray tells the job which cluster it runs on; an address of the job file is for `render`.
    written = spec.model_dump(mode="json", exclude={"address"}, exclude_none=True)
    files[JOB] = yaml.safe_dump(written, sort_keys=True, allow_unicode=True).encode()
    media = ["--media", TABLE] if TABLE in files else []
    entrypoint = shlex.join(["flowcache", "render", "--job", JOB, *media, *options])
    digest = hashlib.sha256(entrypoint.encode())
    for name in sorted(files):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(files[name]).digest())
    return Submission(f"flowcache-{digest.hexdigest()[:16]}", files, entrypoint)


def _is_url(text: str) -> bool:
    return "://" in text


def _manifest_name(manifest: Path) -> str:
    """What it is called where it is sent: of its own name only the ending stays, which says the format."""
    return f"{DATA}/manifest{ending(manifest.name)[0]}"


def _beside(manifest: Path) -> tuple[dict[str, bytes], list[Problem]]:
    """The manifest, the media that its rows name by relative paths and a table of those, and what is wrong with them.

    Rows stay as written: their ids and seeds are hashes of that. Whether they make sense is for the cluster to say: it
    has the models.
    """
    with Sandbox(most=1) as sandbox:
        told, given = Told(), Given(str(manifest))
        named = _relative(given.rows(sandbox, told))
        named = {(name, kind): places for (name, kind), places in named.items() if name not in given.embedded.files}
        if told.problems:
            return {}, told.problems
        room = LIMIT - manifest.stat().st_size
        files, table = {_manifest_name(manifest): manifest.read_bytes() if room >= 0 else b""}, {}
        for (name, kind), places in named.items():
            if room < 0 or told.full:
                break
            try:
                data = _media(sandbox, manifest, name, kind)
            except MediaError as error:
                message = refusal(name, kind, error)
                for number, field in places:
                    told.add([Problem(str(manifest), field, message, row=number)])
                continue
            table[name] = f"media-{hashlib.sha256(data).hexdigest()[:32]}"
            sent = f"{DATA}/{table[name]}"
            room -= 0 if sent in files else len(data)
            files[sent] = data
    if room < 0:
        limit = f"is more than {LIMIT >> 20} MiB with the files that it names; accepted: URLs for so much"
        told.add([Problem(str(manifest), "", limit)])
    if table:
        files[TABLE] = json.dumps(table).encode()
    return files, told.problems


def _relative(rows: Iterable[Line]) -> dict[tuple[str, str], list[tuple[int, str]]]:
    """(row, field) of all places that name a file beside the manifest, by (name, kind)."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, row, _ in rows:
        for field, kind in MEDIA.items():
            name = row.get(field)
            if isinstance(name, str) and not _is_url(name) and not os.path.isabs(os.path.expanduser(name)):
                found.setdefault((name, kind), []).append((number, field))
    return found


def _media(sandbox: Sandbox, manifest: Path, name: str, kind: str) -> bytes:
    """The picture or video beside the manifest, opened and decoded before any of it is sent. MediaError: it is none."""
    path = resolve(name, str(manifest))
    try:
        _check_inside(path, manifest)
        checked = sandbox.probe(path, kind, "")
        data = _carried(path, manifest)
    except UnreadableError as error:
        raise MediaError(str(error)) from error
    except (OSError, ValueError) as error:
        raise MediaError(cause(error)) from error
    if hashlib.sha256(data).hexdigest() != checked.sha256:
        raise MediaError("changed while it was read")
    return data


def _check_inside(path: str, manifest: Path) -> None:
    """Links are followed first: a manifest that came with one must not send what lies elsewhere on this machine."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(manifest.parent)):
        raise MediaError("leaves the manifest's folder; accepted: a path in it, or a URL")


def _carried(path: str, manifest: Path) -> bytes:
    """The file; of a run's playlist the video that it names, as one."""
    if not is_playlist(path):
        return Path(path).read_bytes()
    video = io.BytesIO()
    collect(path, video, LIMIT, seen=lambda part: _check_inside(part, manifest))
    return video.getvalue()


def connect(address: str) -> JobSubmissionClient:
    """A client of the dashboard at `address` (http or https). InputError: no Ray answers, or it wants a token."""
    if not address.startswith(("http://", "https://")):
        wanted = "accepted: the dashboard's address such as http://head:8265"
        raise InputError([Problem("--address", "", f"got {address!r}; {wanted}")])
    preferred = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if preferred not in (None, "", address):  # Ray's client would go there without a word
        message = f"got {address!r}, but RAY_API_SERVER_ADDRESS or RAY_ADDRESS says {preferred!r}; unset it"
        raise InputError([Problem("--address", "", message)])
    for chatty in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{chatty}").setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        where = "RAY_AUTH_TOKEN, or a file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
        message = f"{address} wants Ray's token ({error.message.splitlines()[0]}): set RAY_AUTH_MODE=token and {where}"
        raise InputError([Problem("--address", "", message)]) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # no connection, or something that is no Ray
        raise InputError([Problem("--address", "", f"no Ray dashboard answers at {address}: {error}")]) from None


def submit(client: JobSubmissionClient, submission: Submission) -> tuple[str, bool]:
    """The id of the job, and whether it was started by this call; else it runs already or has succeeded."""
    with _refusals():
        known = _statuses(client)
    names = (f"{submission.name}-{attempt}" for attempt in count(1))
    name = next(name for name in names if known.get(name) not in (JobStatus.FAILED, JobStatus.STOPPED))
    if name in known:
        return name, False
    with TemporaryDirectory() as folder, _refusals():
        for file, data in submission.files.items():
            path = Path(folder) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return name, _start(client, name, submission.entrypoint, folder)


def _start(client: JobSubmissionClient, name: str, entrypoint: str, folder: str) -> bool:
    """False if the job is there already. Tried for PATIENCE seconds where the cluster is not ready for jobs yet."""
    until = time.monotonic() + PATIENCE
    environment = {"working_dir": folder, "env_vars": ISOLATED}
    while True:
        try:
            client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=environment)
            return True
        except (OSError, RuntimeError) as error:
            if name in _statuses(client):  # another submitter of the same job was faster, or our answer was lost
                return False
            if "status code 4" in str(error) or time.monotonic() > until:
                raise
            time.sleep(POLL)


def _statuses(client: JobSubmissionClient) -> dict[str | None, JobStatus]:
    return {job.submission_id: job.status for job in client.list_jobs()}


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        raise FlowcacheError(f"the job could not be submitted: {error}") from error


def follow(client: JobSubmissionClient, name: str, write: Callable[[str], object]) -> JobDetails:
    """Pass the job's log to `write` until the job has ended; how it ended. FlowcacheError if the head is lost."""
    shown = 0
    while True:
        before = _details(client, name)
        shown = asyncio.run(_pass_on(client, name, write, shown))
        if before.status.is_terminal():  # so the log was read after the end
            return before
        if not _details(client, name).status.is_terminal():
            time.sleep(POLL)


async def _pass_on(client: JobSubmissionClient, name: str, write: Callable[[str], object], shown: int) -> int:
    """The log from character `shown` on, until its connection ends or falls silent; the characters shown by then.

    A connection always begins with the log's start.
    """
    position = 0
    try:
        # a generator, which Ray's type does not say
        async with aclosing(client.tail_job_logs(name)) as lines:  # pyright: ignore[reportArgumentType]
            while True:
                text = await asyncio.wait_for(anext(lines), QUIET)
                new = text[max(0, shown - position) :]
                position += len(text)
                if new:
                    write(new)
                    shown = position
    except (StopAsyncIteration, TimeoutError, aiohttp.ClientError, RuntimeError):
        return shown  # streams break while jobs run; the job's status decides


def _details(client: JobSubmissionClient, name: str) -> JobDetails:
    """What the head says of the job, asked again for PATIENCE seconds where it does not answer."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return client.get_job_info(name)
        except FAULTS as error:
            if time.monotonic() > until:
                raise FlowcacheError(
                    f"the cluster no longer says how {name} fares: {error}. The store keeps what was committed; "
                    "the same command follows the job if it still runs, else starts it anew"
                ) from error
            time.sleep(POLL)


def exit_code(details: JobDetails) -> int:
    """What `flowcache render` ended with; 1 for a job that was stopped, killed or never started."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    return code if code is not None and 0 < code < 256 else 1
