"""A module by a config that somebody wrote: whatever is odd in it becomes an InputError."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from flowcache.errors import InputError
from flowcache.models.formats import fault

M = TypeVar("M", bound=nn.Module)
LAYERS = re.compile("layers|depth|num_res_blocks")  # keys that say of how many parts a module is made
MOST = 1000


def built(make: Callable[[], M], file: Path, config: Mapping[str, Any]) -> M:
    """What `make` makes, on the meta device. file, config: for messages, and what it is made by."""
    for key, value in config.items():
        if LAYERS.search(key) and isinstance(value, int) and value > MOST:
            raise fault(file, f"got {value:,}; accepted: {MOST:,} at most", key)
    try:
        with torch.device("meta"):
            return make()
    except InputError:
        raise
    except Exception as error:  # a module may do anything with sizes that it was not made for
        said = " ".join(str(error).split())[:160]
        raise fault(file, f"makes no model: {type(error).__name__}: {said}") from error
