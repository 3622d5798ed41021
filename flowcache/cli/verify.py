"""`flowcache verify`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flowcache.cli.common import Endpoint, Json, Output, err, open_store, out, print_json
from flowcache.cli.targets import home
from flowcache.errors import InputError, Problem


def verify(
    output: Output,
    decode: Annotated[bool, typer.Option(help="Decode every chunk and count its frames.")] = True,
    anchors: Annotated[
        Path | None, typer.Option(help="PEM file: only signatures by these authorities count; else anybody's do.")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Re-hash everything, decode every chunk, count frames, compare with the playlists and Parquet.

    Exit code 4 when anything is damaged or missing; each damage is named.
    """
    from flowcache.storage.growth import some_of
    from flowcache.storage.provenance import INSTALL
    from flowcache.storage.signatures import can_check, signatures
    from flowcache.storage.verify import verify as verify_store

    store, trusted = open_store(output, endpoint_url), _trusted(anchors)
    report, unchecked = verify_store(store, decode, trusted), [] if can_check() else signatures(store)
    if as_json:
        print_json({**asdict(report), "unchecked_signatures": unchecked, "sound": report.sound})
    else:
        for problem in report.problems:
            err.print(f"[red]damaged:[/] {escape(str(problem))}")
        if report.foreign:
            err.print(f"ignored, of somebody else: {escape(some_of(report.foreign))}")
        if unchecked:
            err.print(f"not checked: {len(unchecked)} signatures; {INSTALL}", markup=False)
        counted = ", ".join(f"{number} {name}" for name, number in report.counts.items())
        out.print(f"{'sound' if report.sound else f'{len(report.problems)} problems'}: {counted}")
    raise typer.Exit(0 if report.sound else 4)


def _trusted(file: Path | None) -> bytes | None:
    """InputError."""
    try:
        found = home(file).read_bytes() if file else None
    except OSError as error:
        raise InputError([Problem("--anchors", "", f"can't be read: {error.strerror}; accepted: a PEM file")]) from None
    if found is not None and b"-----BEGIN CERTIFICATE-----" not in found:
        raise InputError([Problem("--anchors", "", "holds no certificate; accepted: a PEM file")])
    return found
