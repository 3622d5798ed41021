"""`flowcache sign`, and the options of those that sign."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowcache.cli.common import Endpoint, Json, Output, open_store, out, print_json
from flowcache.errors import StoreError

if TYPE_CHECKING:
    from flowcache.export.film import Film

Certificate = Annotated[
    str | None,
    typer.Option(
        "--sign-cert",
        envvar="FLOWCACHE_SIGN_CERT",
        show_envvar=True,
        help="PEM file: the signer's certificate and those above it.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--sign-key", envvar="FLOWCACHE_SIGN_KEY", show_envvar=True, help="PEM file: its private key."),
]
Timestamps = Annotated[
    str | None,
    typer.Option(
        "--timestamp-url",
        envvar="FLOWCACHE_TIMESTAMP_URL",
        show_envvar=True,
        help="An RFC 3161 authority, which confirms the time.",
    ),
]


def sign(
    output: Output,
    video: Annotated[list[str] | None, typer.Argument(help="Video ids; none: every finished video.")] = None,
    certificate: Certificate = None,
    key: Key = None,
    timestamps: Timestamps = None,
    again: Annotated[bool, typer.Option("--again", help="Those, too, that are signed already.")] = False,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """A signed C2PA manifest beside each video: that a model made it, which, from what, and when.

    It holds for the MP4 that `flowcache export` writes. `verify` checks it.
    """
    from flowcache.export.film import find
    from flowcache.storage import layout
    from flowcache.storage.joined import joined
    from flowcache.storage.provenance import credential, sidecar
    from flowcache.storage.signatures import signatures

    signer, store = credential(certificate, key, timestamps), open_store(output, endpoint_url)
    found = find(store, video or ())
    there = set() if again else set(signatures(store))
    faults, new = found.faults, list[str]()
    for film in found.films:
        if film.id in there:
            continue
        try:
            store.put(layout.signature_key(film.id), sidecar(joined(store, film.markers), said_of(film), signer))
            new.append(film.id)
        except StoreError as fault:
            faults.append(fault)
    if as_json:
        print_json({"signed": new, "signed_before": sorted(there & {film.id for film in found.films})})
    else:
        before = (
            f", {len(found.films) - len(new)} were signed already or not to be read"
            if len(new) < len(found.films)
            else ""
        )
        out.print(f"{len(new)} videos signed{before}", markup=False)
    if faults:
        raise StoreError(f"{len(faults)} videos not signed: {faults[0]}")


def said_of(film: "Film") -> dict[str, Any]:
    """The claim."""
    from flowcache import __version__
    from flowcache.storage.provenance import claim

    return claim(film.request, film.markers, film.model_digest, __version__, film.watermark)
