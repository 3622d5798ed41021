"""Where everything lies below an output root. Keys are relative to the root; see docs/storage.md."""

import secrets
import time

RUNS, COMMITS, DEAD_LETTERS, STATES, MEDIA, META = "_run", "_commits", "_dead_letter", "_state", "media", "meta"
LINKS = "_links"
TEXTS = "_texts"
GIVEN = "_given"
WITHDRAWN = "_withdrawn"
HOLDERS = "_holders"
CONTROL, EVENTS = "_control", "_events"
SUCCESS, STOPPED, OWNER = "_SUCCESS", "_STOPPED", "_OWNER"


def new_attempt() -> str:
    """A short unique name for one try at one segment; later ones sort after earlier ones (to the second)."""
    return f"{int(time.time()):08x}{secrets.token_hex(4)}"


def run_key(run_id: str) -> str:
    return f"{RUNS}/{run_id}.json"


def generation_key(run_id: str, number: int) -> str:
    """What was added to the run; `number` counts from 2."""
    return f"{RUNS}/{run_id}/{number:05d}.json"


def marker_key(video_id: str, segment: int) -> str:
    return f"{COMMITS}/{video_id}/{segment:05d}.json"


def done_key(video_id: str) -> str:
    return f"{COMMITS}/{video_id}/DONE.json"


def finish_key(video_id: str, finish: str) -> str:
    """The commit of what a finishing function, module:function, made of the video."""
    return f"{COMMITS}/{video_id}/finish.{in_keys(finish)}.json"


def finished_key(video_id: str, finish: str, attempt: str, file: str) -> str:
    """A file that it wrote."""
    return f"{MEDIA}/{video_id}/finish/{in_keys(finish)}/{attempt}/{file}"


def in_keys(finish: str) -> str:
    """A name that all stores take; names of Python hold no hyphen."""
    return finish.replace(":", "-")


def of_keys(name: str) -> str:
    return name.replace("-", ":")


def dead_letter_key(video_id: str) -> str:
    return f"{DEAD_LETTERS}/{video_id}.json"


def state_key(video_id: str, segment: int, attempt: str) -> str:
    """The segment's tail latents, which the next segment continues from."""
    return f"{STATES}/{video_id}/{segment:05d}.{attempt}.safetensors"


def text_folder(digest: str, precision: str) -> str:
    """What a checkpoint's text encoder made of the run's texts."""
    return f"{TEXTS}/{digest[:16]}-{precision}"


def text_key(digest: str, precision: str, sha256: str) -> str:
    """The embeddings of the text with this hash."""
    return f"{text_folder(digest, precision)}/{sha256}.safetensors"


def given_key(name: str) -> str:
    """A picture or video that came inside a manifest; `name` tells its content."""
    return f"{GIVEN}/{name}"


def init_key(video_id: str) -> str:
    return f"{MEDIA}/{video_id}/init.mp4"


def media_key(video_id: str, chunk: int, attempt: str) -> str:
    """One chunk's frames; `chunk` counts over the whole video."""
    return f"{MEDIA}/{video_id}/{chunk:05d}.{attempt}.m4s"


def playlist_key(video_id: str) -> str:
    return f"{MEDIA}/{video_id}/index.m3u8"


def master_key(video_id: str) -> str:
    """What a player is told of the stream, with the playlist beside it as its only one."""
    return f"{MEDIA}/{video_id}/master.m3u8"


def signature_key(video_id: str) -> str:
    """The C2PA manifest of the whole video as one MP4."""
    return f"{MEDIA}/{video_id}/provenance.c2pa"


def table_prefix(table: str, run_id: str) -> str:
    """Folder of the table's parts; `table` is "videos" or "chunks"."""
    return f"{META}/{table}/run={run_id}"


def part_key(table: str, run_id: str, part: int) -> str:
    return f"{table_prefix(table, run_id)}/part-{part:05d}.parquet"


def manifest_key(run_id: str, generation: int) -> str:
    """The rows of one generation, for people; from 1."""
    return f"{table_prefix('manifests', run_id)}/generation-{generation:05d}.parquet"


def parts_key(run_id: str) -> str:
    """What each part of the tables was made from."""
    return f"{META}/_parts/{run_id}.json"


def withdrawn_key(video_id: str, moment: str) -> str:
    """What a repair took back of the video."""
    return f"{WITHDRAWN}/{video_id}/{moment}.json"


def holder_key(name: str) -> str:
    """Who is, or was, at work on the root."""
    return f"{HOLDERS}/{name}.json"


def link_key(video_id: str, expires: int) -> str:
    """A playlist of signed addresses, which hold until `expires` (unix seconds)."""
    return f"{LINKS}/{video_id}/{expires}.m3u8"


def command_key(number: int) -> str:
    """What somebody told the run; `number` counts from 1."""
    return f"{CONTROL}/{number:05d}.json"


def taken_key(number: int) -> str:
    """Who took the command of that number, and what became of it."""
    return f"{CONTROL}/{number:05d}.taken.json"


def rows_key(sha256: str, ending: str) -> str:
    """A manifest that a command adds, as it was given."""
    return f"{CONTROL}/manifests/{sha256}{ending}"


def commands_key(run_id: str) -> str:
    """The table of all commands."""
    return part_key("commands", run_id, 0)


def events_key(holder: str, number: int) -> str:
    """What a driver told, some lines at a time; `number` counts from 1."""
    return f"{EVENTS}/{holder}/{number:05d}.jsonl"
