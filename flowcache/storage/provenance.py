"""Signed statements that a video was made by AI: C2PA manifests (https://spec.c2pa.org, 2.x), by the c2pa library.

A signature holds for the MP4 that a video's chunks are joined to, which has the same bytes each time. The certificate
and its key come from files or the environment, and are never written anywhere.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from flowcache.errors import InputError, ObjectError, Problem
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.media import AI_MADE, encode_chunk, join

FORMAT = "video/mp4"
INSTALL = "pip install 'flowcache[provenance]'"
CERTIFICATE, KEY = "--sign-cert", "--sign-key"
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
ACCEPTED = "an EC (P-256, P-384, P-521), Ed25519 or RSA key of its certificate, both as PEM, without a password"
TRIAL = {
    "title": "a trial",
    "assertions": [
        {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": AI_MADE}]}}
    ],
}
FOREIGN = "signingCredential.untrusted"  # told of every signer where nobody was asked to be trusted


@dataclass(frozen=True)
class Credential:
    """certificates: the signer's and those above it, PEM; timestamps: address of an RFC 3161 authority."""

    certificates: bytes = field(repr=False)
    key: bytes = field(repr=False)
    algorithm: str
    timestamps: str | None = None

    @property
    def name(self) -> str:
        """Tells this signer from others."""
        return hashlib.sha256(self.certificates).hexdigest()


def library() -> Any:
    """InputError where it is not installed."""
    try:
        import c2pa
    except ImportError:
        raise InputError([Problem("C2PA", "", f"needs the c2pa library; {INSTALL}")]) from None
    return c2pa


def credential(certificates: str | None, key: str | None, timestamps: str | None = None) -> Credential:
    """Of two PEM files, or of their text. InputError where they are not a certificate and its key."""
    found = dict[str, bytes]()
    for name, given in ((CERTIFICATE, certificates), (KEY, key)):
        if not given:
            variable = f"FLOWCACHE_{name.lstrip('-').replace('-', '_').upper()}"
            raise InputError([Problem(name, "", f"is not given; accepted: a PEM file, here or in {variable}")])
        try:
            found[name] = (
                given.encode()
                if given.lstrip().startswith("-----BEGIN")
                else Path(os.path.expanduser(given)).read_bytes()
            )
        except OSError as error:
            raise InputError([Problem(name, "", f"can't be read: {error.strerror}; accepted: a PEM file")]) from None
    made = Credential(found[CERTIFICATE], found[KEY], _algorithm(found[KEY]), timestamps)
    c2pa = library()
    try:
        sign(c2pa, made, TRIAL, _trial())
    except c2pa.C2paError as error:
        why = f"don't sign: {_told(error)}; accepted: {ACCEPTED}, with key usage digitalSignature"
        raise InputError([Problem(f"{CERTIFICATE}, {KEY}", "", why)]) from None
    return made


def _trial() -> bytes:
    chunk = encode_chunk(np.zeros((1, 16, 16, 3), np.uint8), 0, 1)
    return join(chunk.init, [chunk.data])


def _algorithm(key: bytes) -> str:
    """As C2PA names it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError([Problem(KEY, "", f"can't be read; accepted: {ACCEPTED}")]) from None
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise InputError([Problem(KEY, "", f"is of another kind; accepted: {ACCEPTED}")])


def claim(
    request: dict[str, Any],
    markers: Sequence[SegmentMarker],
    digest: str | None,
    version: str,
    watermark: str | None = None,
) -> dict[str, Any]:
    """What is signed of a video. request: as the run has it; digest: of its checkpoint; version: flowcache's;
    watermark: what its frames were marked with."""
    prompts = "\n".join(shot["prompt"] for shot in request["shots"])
    when = datetime.fromtimestamp(max(marker.finished for marker in markers), UTC).isoformat(timespec="seconds")
    created = {
        "action": "c2pa.created",
        "digitalSourceType": AI_MADE,
        "when": when.replace("+00:00", "Z"),
        "softwareAgent": {"name": request["model"], "version": digest or "unknown"},
    }
    actions = [created]
    if watermark:  # unbound: nobody can look this manifest up by what the mark says
        marked = {"action": "c2pa.watermarked.unbound", "when": created["when"], "softwareAgent": {"name": watermark}}
        actions.append(marked)
    video = {
        "id": request["id"],
        "run_id": markers[0].run_id,
        "model": request["model"],
        "model_digest": digest,
        "prompt_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        "seed": request["seed"],
        "frames": sum(marker.frames for marker in markers),
    }
    return {
        "claim_generator_info": [{"name": "Flowcache", "version": version}],
        "title": request["id"],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": "io.flowcache.video", "data": video},
        ],
    }


def signed(mp4: bytes, claim: dict[str, Any], signer: Credential) -> bytes:
    """The MP4 with its manifest inside."""
    return _signed(mp4, claim, signer, embed=True)[0]


def sidecar(mp4: bytes, claim: dict[str, Any], signer: Credential) -> bytes:
    """The manifest alone; the MP4 stays as it is."""
    return _signed(mp4, claim, signer, embed=False)[1]


def _signed(mp4: bytes, claim: dict[str, Any], signer: Credential, embed: bool) -> tuple[bytes, bytes]:
    c2pa = library()
    try:
        return sign(c2pa, signer, claim, mp4, embed)
    except c2pa.C2paError as error:
        raise ObjectError(f"video {claim['title']} can't be signed: {_told(error)}") from None


def sign(c2pa: Any, signer: Credential, claim: dict[str, Any], mp4: bytes, embed: bool = True) -> tuple[bytes, bytes]:
    """The file that results, and the manifest. C2paError."""
    info = c2pa.C2paSignerInfo(
        alg=signer.algorithm.encode(),
        sign_cert=signer.certificates,
        private_key=signer.key,
        ta_url=signer.timestamps.encode() if signer.timestamps else None,
    )
    out = io.BytesIO()
    with c2pa.Builder(json.dumps(claim)) as builder, c2pa.Signer.from_info(info) as made:
        if not embed:
            builder.set_no_embed()
        manifest = builder.sign(made, FORMAT, io.BytesIO(mp4), out)
    return out.getvalue(), bytes(manifest)


def fault_of(mp4: bytes, manifest: bytes | None = None, anchors: bytes | None = None) -> str | None:
    """What is wrong with the signature of these bytes; None where it holds. manifest: a sidecar, else the one inside.
    anchors: PEM of those whose certificates are trusted; else anybody's signature counts."""
    c2pa = library()
    trusted = {"trust": {"user_anchors": anchors.decode(errors="replace")}} if anchors else {}
    try:
        with c2pa.Reader(FORMAT, io.BytesIO(mp4), manifest, c2pa.Context(c2pa.Settings.from_dict(trusted))) as reader:
            if reader.get_validation_state() in (("Trusted",) if anchors else ("Trusted", "Valid")):
                return None
            found = (reader.get_validation_results() or {}).get("activeManifest", {}).get("failure", [])
    except c2pa.C2paError as error:
        return f"it can't be read: {_told(error)}"
    codes = [one["code"] for one in found if anchors or one["code"] != FOREIGN]
    return ", ".join(dict.fromkeys(codes)) or "it does not hold"


def _told(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
