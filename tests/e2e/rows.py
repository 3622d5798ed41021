"""Manifests of small videos."""

import json
from pathlib import Path

PROMPT = "a red circle moving right on a blue background"


def row(name: str, **fields) -> dict:
    """A video of one or two chunks in two steps: quick, and too coarse to look at."""
    return {"id": name, "prompt": PROMPT, "frames": 21, "steps": 2, **fields}


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
