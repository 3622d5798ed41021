"""`flowcache export`."""

from pathlib import Path
from typing import Annotated

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.cli.targets import check_folder
from flowcache.errors import InputError, Problem, StoreError


def export(
    output: Output,
    video: Annotated[list[str] | None, typer.Argument(help="Video ids; none: every finished video.")] = None,
    to: Annotated[str, typer.Option(help="Folder or URL for the files.")] = "export",
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """One plain MP4 for each video, joined from its chunks without re-encoding."""
    from flowcache.inputs.output_url import check_root
    from flowcache.storage.commits import read_commits
    from flowcache.storage.export import export as export_video
    from flowcache.storage.objects.registry import normalise
    from flowcache.storage.objects.schemes import S3, scheme_of

    check_root(to, typed=True, name="--to")
    target = normalise(to)
    if "://" not in target:
        check_folder(Path(target))
    store = open_store(output, endpoint_url)
    names = video or sorted(read_commits(store).done)
    if not names:
        raise InputError([Problem(output, "", "holds no finished video yet")])
    access = {"endpoint_url": endpoint_url} if endpoint_url and scheme_of(target) is S3 else {}
    sizes, faults = dict[str, int](), list[StoreError]()
    for name in names:
        file = f"{to.rstrip('/')}/{name}.mp4"
        try:
            sizes[file] = export_video(store, name, file, **access)
        except StoreError as fault:
            faults.append(fault)
            continue
        if not as_json:
            out.print(f"{file} ({sizes[file]:,} bytes)", markup=False)
    if as_json:
        print_json(sizes)
    if faults:
        others = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise StoreError(f"{len(faults)} of {len(names)} videos not exported: {faults[0]}{others}")
