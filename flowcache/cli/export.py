"""`flowcache export`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flowcache.cli import options
from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.cli.selecting import selection_of
from flowcache.cli.sign import Certificate, Key, Timestamps, said_of
from flowcache.cli.targets import check_folder
from flowcache.errors import InputError, Problem, StoreError, masked

if TYPE_CHECKING:
    from flowcache.export.film import Film
    from flowcache.export.plan import Plan, Read
    from flowcache.export.target import Receipt
    from flowcache.storage.objects.store import Store
    from flowcache.storage.provenance import Credential

Form = Literal["mp4", "webdataset", "huggingface", "lerobot"]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Also over files of somebody else's, and a dataset of other videos.")
]


def export(
    output: Output,
    video: Annotated[list[str] | None, typer.Argument(help="Video ids; none: every finished video.")] = None,
    to: Annotated[str, typer.Option(help="Folder or URL for the files.")] = "export",
    form: Annotated[Form, typer.Option("--format", help="mp4, or a dataset in a form that people train with.")] = "mp4",
    only: options.Only = None,
    condition: options.WhereOption = None,
    sample: options.Sample = None,
    limit: options.Limit = None,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="ID.jpg beside each MP4.")] = False,
    sheets: Annotated[bool, typer.Option("--sheets", help="ID-sheet.jpg, ten frames, beside each MP4.")] = False,
    finishes: Annotated[
        bool, typer.Option("--finishes", help="ID-FILE, what `render --finish` made of it, beside each MP4.")
    ] = False,
    signed: Annotated[
        bool, typer.Option("--sign", help="A signed C2PA manifest in each MP4 (see `flowcache sign`).")
    ] = False,
    certificate: Certificate = None,
    key: Key = None,
    timestamps: Timestamps = None,
    overwrite: Overwrite = False,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Finished videos as MP4 files or a dataset, without encoding again. What is there already is not written again."""
    from flowcache.export.film import find
    from flowcache.export.run import export as write
    from flowcache.storage.provenance import credential

    chosen = selection_of(only, condition, sample, limit, None)
    beside = {"--thumbnails": thumbnails, "--sheets": sheets, "--finishes": finishes}
    if any(beside.values()) and form != "mp4":
        name = next(option for option, asked in beside.items() if asked)
        raise InputError([Problem(name, "", f"goes with --format mp4, not with {form}; accepted: one of the two")])
    signer = credential(certificate, key, timestamps) if signed else None
    target, store = _target(to, endpoint_url), open_store(output, endpoint_url)
    if f"{target.url}/".startswith(f"{store.url}/"):
        raise InputError(
            [Problem("--to", "", f"lies in the run's own folder {masked(store.url)}; accepted: another one")]
        )
    found = find(store, video or (), chosen)
    if found.faults and (form != "mp4" or not found.films):
        raise StoreError(_counted(found.faults, len(found.films) + len(found.faults), "videos"))
    plan = _plan(form, found.films, _reader(store, signer), store, beside)
    if signer:
        plan = plan.as_of(f"signed by {signer.name}")
    root = to.rstrip("/")

    def told(one: "Receipt") -> None:
        if not as_json:
            out.print(f"{root}/{one.key} ({one.bytes:,} bytes)", markup=False)

    done = write(plan, target, told, overwrite)
    if as_json:
        print_json({f"{root}/{one.key}": one.bytes for one in done.written})
    elif done.found:
        out.print(f"{done.found:,} files were there already")
    if faults := found.faults + done.faults:
        raise StoreError(_counted(faults, len(plan.files) + len(plan.index) + len(found.faults), "files"))


def _counted(faults: list[StoreError], every: int, what: str) -> str:
    others = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{len(faults)} of {every} {what} not exported: {faults[0]}{others}"


def _target(to: str, endpoint_url: str | None) -> "Store":
    from flowcache.inputs.output_url import check_root
    from flowcache.storage.objects.registry import normalise
    from flowcache.storage.objects.schemes import S3, scheme_of
    from flowcache.storage.objects.store import Store

    check_root(to, typed=True, name="--to")
    url = normalise(to)
    if "://" not in url:
        check_folder(Path(url))
    return Store(to, **({"endpoint_url": endpoint_url} if endpoint_url and scheme_of(url) is S3 else {}))


def _reader(store: "Store", signer: "Credential | None") -> "Read":
    from flowcache.storage.joined import joined
    from flowcache.storage.provenance import signed

    def read(film: "Film") -> bytes:
        mp4 = joined(store, film.markers)
        return signed(mp4, said_of(film), signer) if signer else mp4

    return read


def _plan(form: Form, found: "list[Film]", read: "Read", store: "Store", beside: dict[str, bool]) -> "Plan":
    """beside: by option, what goes beside MP4 files."""
    from flowcache.export import huggingface, lerobot, mp4, webdataset

    if form == "webdataset":
        return webdataset.webdataset(found, read)
    if form == "huggingface":
        return huggingface.huggingface(found, read)
    if form == "lerobot":
        return lerobot.lerobot(found, read, store)
    pictures = {".jpg": partial(mp4.thumbnail, store)} if beside["--thumbnails"] else {}
    pictures |= {"-sheet.jpg": partial(mp4.contact_sheet, store)} if beside["--sheets"] else {}
    return mp4.mp4(found, read, pictures, mp4.finished(store, found) if beside["--finishes"] else ())
