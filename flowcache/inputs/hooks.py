"""Functions of the user's own that a run calls, each named as module:function."""

import importlib
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from flowcache.errors import InputError, Problem, first_line
from flowcache.inputs.written import shown

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
FUNCTION = "module:function, where the module is installed on this machine and on every node"
MARKS = {"trustmark": "trustmark", "videoseal": "videoseal"}  # adapters of ours, and the package that each needs
WATERMARK, FINISH = "--watermark", "--finish"


def watermark_fault(name: str) -> Problem | None:
    """What speaks against marking frames so; None where nothing does. Imports the module, or looks for the package."""
    package = MARKS.get(name)
    if package is None:
        return function_fault(WATERMARK, name)
    if find_spec(package) is None:
        message = (
            f"got {name!r}, whose package {package} is not installed; accepted: with it here and on every node, or "
        )
        return Problem(WATERMARK, "", message + FUNCTION)
    return None


def function_fault(option: str, name: str) -> Problem | None:
    """What speaks against calling it; None where nothing does."""
    try:
        function(option, name)
    except InputError as error:
        return error.problems[0]
    return None


def function(option: str, name: str) -> Callable[..., Any]:
    """What module:function names; InputError where it can't be had.

    The current folder is searched last, unless Python was told not to (`PYTHONSAFEPATH`).
    """
    if not NAME.fullmatch(name):
        known = f", or {', '.join(MARKS)}" if option == WATERMARK else ""
        raise InputError([Problem(option, "", f"got {shown(name)}; accepted: {FUNCTION}{known}")])
    module, _, attribute = name.partition(":")
    if not sys.flags.safe_path and os.getcwd() not in sys.path:  # as Ray has it in its workers: both see the same
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # noqa: BLE001 (whatever a stranger's module raises)
        why = f"{type(error).__name__}: {first_line(error)}"
        message = f"got {name!r}, whose module can't be imported ({why}); accepted: {FUNCTION}"
        raise InputError([Problem(option, "", message)]) from error
    if not callable(found):
        message = f"got {name!r}: {module} has no function {attribute}; accepted: {FUNCTION}"
        raise InputError([Problem(option, "", message)])
    return found
