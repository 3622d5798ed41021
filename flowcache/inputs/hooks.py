"""Functions of the user's own that a run calls, each named as module:function."""

import importlib
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from types import FrameType
from typing import Any

from flowcache.errors import InputError, Problem, first_line, words
from flowcache.inputs.written import shown

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
FUNCTION = "module:function, where the module is installed on this machine and on every node"
MARKS = {"trustmark": "trustmark", "videoseal": "videoseal"}  # adapters of ours, and the package that each needs
WATERMARK, FINISH = "--watermark", "--finish"
PLAIN = "accepted: a plain function"
LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Exited(RuntimeError):
    """Code of the user's wanted to end the program."""


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
    here = current_folder()
    if here and not sys.flags.safe_path and here not in sys.path:  # as Ray has it in its workers: both see the same
        sys.path.append(here)
    try:
        with lent(), redirect_stdout(sys.stderr):  # ours may be one JSON document
            found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # noqa: BLE001 (whatever a stranger's module raises)
        why = f"{type(error).__name__}: {first_line(error)}"
        message = f"got {name!r}, whose module can't be imported ({why}); accepted: {FUNCTION}"
        raise InputError([Problem(option, "", message)]) from error
    if not callable(found):
        message = f"got {name!r}: {module} has no function {attribute}; accepted: {FUNCTION}"
        raise InputError([Problem(option, "", message)])
    if any(kind(found) for kind in LATER):
        message = f"got {name!r}, which is asynchronous or a generator: called, it would do nothing; {PLAIN}"
        raise InputError([Problem(option, "", message)])
    return found


@contextmanager
def lent() -> Iterator[None]:
    """Around code of the user's: what it raises to end a process (SystemExit, KeyboardInterrupt ...) is Exited, unless
    a signal came; and whatever folder it goes to, the current one is as it was."""
    here = current_folder()
    with signals_told() as told:
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if told or hasattr(error, "ray_terminate_msg"):  # somebody, or Ray, ends this process: nobody's fault
                raise
            raise Exited(_ended(error)) from error
        finally:
            if here and current_folder() != here:
                with suppress(OSError):
                    os.chdir(here)


def _ended(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    return f"it raised {type(error).__name__}" + (f" ({first_line(error)})" if words(error) else "")


@contextmanager
def signals_told() -> Iterator[list[int]]:
    """Which of SIGINT and SIGTERM a handler is told of meanwhile; only the main thread ever is."""
    told = list[int]()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in found.items() if callable(handler)}

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(number)
        before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, tell)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def current_folder() -> str | None:
    """None where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None
