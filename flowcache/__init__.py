"""Overnight bulk rendering of long AI videos on Ray.

import flowcache

summary = flowcache.render([{"prompt": "a red circle moving right on a blue background"}], output="out")
model = flowcache.load_model("tiny-skyreels")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcache.api import (
        Cluster,
        FinishedVideo,
        Plan,
        RowDefaults,
        Run,
        RunOptions,
        Selection,
        StatusReport,
        Summary,
        html_report,
        load_model,
        plan,
        preview,
        render,
        start,
        status,
    )
    from flowcache.errors import InputError

__version__ = "0.2.0"
__all__ = [
    "Cluster", "FinishedVideo", "InputError", "Plan", "RowDefaults", "Run", "RunOptions", "Selection", "StatusReport",
    "Summary", "html_report", "load_model", "plan", "preview", "render", "start", "status",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Torch and Ray are imported at first use, so that `import flowcache` takes no time."""
    if name == "InputError":
        return import_module("flowcache.errors").InputError
    if name in __all__:
        return getattr(import_module("flowcache.api"), name)
    raise AttributeError(f"module 'flowcache' has no attribute {name!r}")
