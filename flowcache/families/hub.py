"""What the Hugging Face Hub calls a model, and where its cache has one. No torch."""

import re
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.models.formats import opened

CACHED, SNAPSHOTS = "models--", "snapshots"
ID = re.compile(r"(?:(?:https?://?)?(?:huggingface\.co|hf\.co)/|hf://?)?"
                r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?:tree|resolve|blob)/.*)?/?")  # fmt: skip


def hub_id(name: str) -> str | None:
    """ORG/NAME, if it can be one or an address there."""
    found = ID.fullmatch(name)
    return found and found["id"]


def snapshot(path: Path) -> Path:
    """The revision in a folder of the cache (models--ORG--NAME): that of refs/main, or the only one; else `path`.

    InputError where none of them can be meant.
    """
    path = path.parent if path.name == SNAPSHOTS and path.parent.name.startswith(CACHED) else path
    revisions = path / SNAPSHOTS
    if not path.name.startswith(CACHED) or not path.is_dir():
        return path
    if not revisions.is_dir():
        raise InputError([Problem(str(path), "", f"holds no {SNAPSHOTS}; {_again(path)}")])
    there = sorted(each.name for each in revisions.iterdir() if each.is_dir())
    main = path / "refs" / "main"
    if main.exists():
        with opened(main) as stream:
            name = stream.read(200).decode(errors="replace").strip()
        if name in there:
            return revisions / name
        raise InputError([Problem(str(main), "", f"names revision {name[:40]!r}, which is not there; {_again(path)}")])
    if len(there) == 1:
        return revisions / there[0]
    several = f"holds {len(there)} revisions and no refs/main; give one of {', '.join(there)}"
    raise InputError([Problem(str(revisions), "", several if there else f"is empty; {_again(path)}")])


def shown_name(folder: Path) -> str:
    """Of a checkpoint's folder: in the cache its NAME, not that of the revision."""
    repository = folder.resolve().parent.parent
    inside = folder.resolve().parent.name == SNAPSHOTS and repository.name.startswith(CACHED)
    return repository.name.rpartition("--")[2] if inside else folder.resolve().name


def _again(path: Path) -> str:
    return f"the download did not finish: run hf download {path.name.removeprefix(CACHED).replace('--', '/')} again"
