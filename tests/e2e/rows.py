PROMPT = "a red circle moving right on a blue background"


def row(name: str, **fields) -> dict:
    """A video of one or two chunks in two steps: quick, and too coarse to look at."""
    return {"id": name, "prompt": PROMPT, "frames": 21, "steps": 2, **fields}
