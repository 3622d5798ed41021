"""The command line: parse, call, print. A file for each command."""

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from io import TextIOWrapper
from types import TracebackType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from flowcache import __version__
from flowcache.cli.bench import bench
from flowcache.cli.calibrate import calibrate
from flowcache.cli.common import err, print_json
from flowcache.cli.export import export
from flowcache.cli.gc import gc
from flowcache.cli.links import links
from flowcache.cli.models import models
from flowcache.cli.plan import plan
from flowcache.cli.render import render
from flowcache.cli.repair import repair
from flowcache.cli.report import report
from flowcache.cli.sheet import sheet
from flowcache.cli.sign import sign
from flowcache.cli.stated import Stated
from flowcache.cli.status import status
from flowcache.cli.steer import add, cancel, pause, prioritise, resume, skip
from flowcache.cli.stop import stop
from flowcache.cli.submit import submit
from flowcache.cli.verify import verify
from flowcache.errors import FlowcacheError, InputError, masked

INTERRUPTED = 130  # as shells have it
NOT_PRINTED = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # a full disk, a terminal that is gone
EXIT_CODES = """
Exit codes: 0 done; 2 bad input and nothing was started; 3 finished, but some videos failed or rows were
rejected; 4 verify found damage, or repair left some; 5 stopped with videos left, at the deadline or by SIGTERM;
1 anything else (run the same command again to go on).
"""

app = typer.Typer(
    help=f"Overnight bulk rendering of long AI videos.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flowcache {__version__}")
        raise typer.Exit()


@app.callback()
def of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of flowcache itself."""


COMMANDS = (render, submit, plan, status, verify, repair, models, calibrate, bench)
STEERING = (pause, resume, stop, cancel, skip, prioritise, add)
for command in (*COMMANDS, export, sign, sheet, report, links, gc, *STEERING):
    app.command(cls=Stated)(command)


def fail(error: FlowcacheError, as_json: bool) -> int:
    problems = [asdict(problem) for problem in error.problems] if isinstance(error, InputError) else []
    if as_json:
        print_json({"error": str(error), "problems": problems, "exit_code": error.exit_code})
    else:
        with suppress(OSError):  # the exit code says it, too
            err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
    return error.exit_code


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody foresaw, as Python shows it, without credentials that it may quote. Nothing of Ctrl-C."""
    if issubclass(kind, KeyboardInterrupt):
        return
    sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


def end(code: str | int | None) -> NoReturn:
    """With bad input, options included, a render that was told to stops the Ray job that it is of."""
    # A further Ctrl-C ends what is left of the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if code == InputError.exit_code and "--stop-on-bad-input" in sys.argv:
        from flowcache.runtime.started_as import stop_job

        stop_job()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # a full disk, a terminal that is gone: Python would make 120 of the code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def open_streams() -> None:
    """What a shell has closed (>&-) leads nowhere: else the next file or socket takes its number, and what is said."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (until the end)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def main() -> None:
    """Entry point: deliberate errors become a message and an exit code, never a traceback."""
    open_streams()
    sys.excepthook = show_traceback
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what no encoding has
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except FlowcacheError as error:
        end(fail(error, "--json" in sys.argv))
    except SystemExit as ended:
        end(ended.code)
    except KeyboardInterrupt:  # one more, while the first one was told
        end(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        sys.exit(1)
    except OSError as error:
        if error.errno not in NOT_PRINTED or error.filename is not None:
            raise
        end(fail(FlowcacheError(f"cannot print: {(error.strerror or '').lower()}"), False))
