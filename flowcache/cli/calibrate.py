"""`flowcache calibrate`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowcache.cli import options
from flowcache.cli.bench import MOST
from flowcache.cli.calibrated import cost, cost_line, line, told
from flowcache.cli.common import Json, check_device, err, out, print_json
from flowcache.cli.targets import check_here, check_outside, home, make_here
from flowcache.errors import FlowcacheError, InputError, Problem

if TYPE_CHECKING:
    from flowcache.inputs.options import RunOptions
    from flowcache.records import ModelSpec
    from flowcache.worker.calibration import Calibration, Calibrator, Preset, Prompt, Target
    from flowcache.worker.walking import Walks
    from flowcache.worker.windows import Windows

LEAST, DRAWN = 6, 16  # prompts
LOST = 3  # gangs that may be lost with one walk and are made anew
Prompts = Annotated[Path | None, typer.Option(help="A text file with a prompt a line, in place of drawn ones.")]
Number = Annotated[
    int | None, typer.Option("--n", min=LEAST, max=999, help="Prompts: 16 drawn ones, or all of the file.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "--to", help="Folder for calibration.json, then a model's name; else the checkpoint's own."),
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; else cpu, and of gangs GPUs where there are.")]
Residuals = Annotated[
    bool,
    typer.Option("--residuals", help="Find nothing: note of the budgets that are there what quality_floor needs."),
]
Schedules = Annotated[
    int, typer.Option(min=0, max=100_000, help="So many are walked at each budget to find one; 0: evenly spaced steps.")
]


def calibrate(
    model: Annotated[str, typer.Argument(help="The path of a checkpoint's folder, or a bundled name.")],
    prompts: Prompts = None,
    n: Number = None,
    budgets: Annotated[str, typer.Option(help="Shares of off's chunk forwards, with commas between them.")] = (
        "0.6,0.45,0.3,0.2,0.15"
    ),
    target: Annotated[str, typer.Option(help="What to come close to: off, or converged (three times the steps).")] = (
        "off"
    ),
    to: Out = None,
    work: Annotated[Path, typer.Option(help="Folder for walks: what lies there is not walked again.")] = Path(
        "calibration-walks"
    ),
    schedules: Schedules = 60,
    seed: Annotated[int, typer.Option(min=0, max=100_000, help="Of prompts and noise; none is one of bench's.")] = 0,
    tflops: options.Tflops = None,
    device: Device = None,
    gang: options.WalkingGang = None,
    gangs: options.Gangs = None,
    address: options.Address = None,
    as_json: Json = False,
    residuals: Residuals = False,
) -> None:
    """Find which steps policy flowcache computes at each budget, and what it adds to its solver, for one checkpoint at
    its own steps and guidance.

    Half of the prompts are worked with; the others decide, with noise of their own: where what was found does not
    surely bring them closer to the target than fewer steps within the same forwards, that budget keeps fewer steps.
    What it takes is said before it starts. With --gang, --gangs or --address gangs of Ray actors walk.
    """
    from flowcache.worker.calibration import Calibrator, recording, works
    from flowcache.worker.walks import Walker

    shares, windows = _shares(budgets), _windows(model, _target(target))
    spec = windows.spec
    texts = _prompts(spec, home(prompts) if prompts else None, n, seed)
    folder, work = _folder(to, model, spec), home(work)
    check_here(folder, "--out")
    check_here(work, "--work")
    check_outside(work, spec.path, "--work")
    ranks = _ranks(spec, device, gang, gangs, address)
    make_here(folder, "--out")
    make_here(work, "--work")
    before = _presets(folder, spec.digest)
    known, half = _known(folder, before, windows) if residuals else [], len(texts) // 2
    shares = [each.budget for each in known] if residuals else shares
    taken = (recording if residuals else works)(windows, schedules, shares, half, len(texts) - half)
    takes = cost(windows, taken, len(texts), tflops, ranks.gang if ranks else 1)
    tell = (lambda text: None) if as_json else lambda text: out.print(text, markup=False)
    tell(cost_line(takes))
    with _walks(model, spec, texts, device or "cpu", ranks) as walks:
        calibrator = Calibrator(Walker(windows, work, walks), schedules)
        make = partial(_recorded, calibrator, known) if residuals else partial(_calibrated, calibrator, shares)
        made, said = make(texts, tell)
    kept = _others(_presets(folder, spec.digest), shares, windows)
    file = _write(folder, spec, [*kept, *made])
    if as_json:
        print_json({**takes, "file": str(file), "budgets": said})


def _windows(model: str, target: "Target") -> "Windows":
    """Of a checkpoint as it is without a calibration, so that what was walked holds for any. InputError."""
    from flowcache.families.calibrations import FILE
    from flowcache.families.registry import find, folder_digest
    from flowcache.worker.windows import Windows

    spec = find(model)
    return Windows(replace(spec, digest=folder_digest(Path(spec.path), without=FILE), calibrations=()), target)


def _folder(to: Path | None, model: str, spec: "ModelSpec") -> Path:
    """For the calibration: where it is found again, beside the checkpoint or without one. InputError."""
    from flowcache.families.hub import snapshot
    from flowcache.families.registry import folder_of, locate

    if to:
        check_here(home(to), "--out")  # before anybody looks into it
    found = snapshot(home(to)) if to else folder_of(model)
    if _named(found, spec) and locate(found):
        why = f"{found} holds a checkpoint" if to else f"is needed: {spec.path} only says where its parts lie"
        raise InputError(
            [Problem("--out", "", f"{why}; accepted: a folder without one, which is then given as the model")]
        )
    return found


def _named(folder: Path, spec: "ModelSpec") -> str | None:
    """The checkpoint, as its calibration in that folder names it; None where it lies beside it."""
    from flowcache.families.registry import BUNDLED, folder_of

    if Path(spec.path).is_dir() and folder.resolve() == Path(spec.path).resolve():
        return None
    return next((name for name in BUNDLED if str(folder_of(name)) == spec.path), str(Path(spec.path).absolute()))


def _presets(folder: Path, digest: str) -> "Sequence[Preset]":
    """That are there. InputError where they are another checkpoint's."""
    from flowcache.families.calibrations import FILE, read

    return read(folder, digest) if (folder / FILE).is_file() else ()


def _others(before: "Sequence[Preset]", shares: Sequence[float], windows: "Windows") -> "list[Preset]":
    """What stays of those that are there in the end: another command may have written meanwhile."""
    made = {(share, windows.conditions(), windows.target) for share in shares}
    return [each for each in before if (each.budget, each.conditions, each.target) not in made]


def _known(folder: Path, before: "Sequence[Preset]", windows: "Windows") -> "list[Calibration]":
    """Those that were fitted to the target at the checkpoint's own settings. InputError where there is none."""
    from flowcache.worker.calibration import Calibration

    at = windows.conditions(), windows.target
    known = [each for each in before if isinstance(each, Calibration) and (each.conditions, each.target) == at]
    if not known:
        why = f"{folder} has no budget that was fitted to {windows.target} at the checkpoint's own settings"
        raise InputError([Problem("--residuals", "", why)])
    return known


def _write(folder: Path, spec: "ModelSpec", presets: "Sequence[Preset]") -> Path:
    from flowcache.families.calibrations import FILE, write

    write(folder, spec.digest, presets, _named(folder, spec))
    return folder / FILE


def _calibrated(
    calibrator: "Calibrator", shares: Sequence[float], texts: "Sequence[Prompt]", tell: Callable[[str], None]
) -> "tuple[list[Preset], list[dict[str, Any]]]":
    """The presets, and what is said of each budget."""
    made, said, half = list["Preset"](), list[dict[str, Any]](), len(texts) // 2
    for share in shares:
        outcome = calibrator.calibrate(share, texts[:half], texts[half:])
        said.append(told(calibrator.windows, outcome))
        usual, *_ = calibrator.windows.runs(share, 1.0)  # so that no smaller preset takes its place
        made.append(outcome.preset or usual)
        tell(line(said[-1]))
    return made, said


def _recorded(
    calibrator: "Calibrator", known: "Sequence[Calibration]", texts: "Sequence[Prompt]", tell: Callable[[str], None]
) -> "tuple[list[Calibration], list[dict[str, Any]]]":
    """As `_calibrated`, of presets that are there."""
    half = len(texts) // 2
    made = [calibrator.recorded(each, texts[:half], texts[half:]) for each in known]
    said = [{"budget": each.budget, "predicted_error": each.predicted} for each in made]
    for each in made:
        tell(f"budget {each.budget:g}: residuals of {len(texts) - half} prompts are noted")
    return made, said


@contextmanager
def _walks(
    model: str, spec: "ModelSpec", prompts: "Sequence[Prompt]", device: str, ranks: "RunOptions | None"
) -> "Iterator[Walks]":
    """spec: without a calibration. ranks: None: in this process."""
    from flowcache.families.registry import load_model, reference
    from flowcache.worker.walking import Here

    texts = (*(each.text for each in prompts), spec.negative_prompt)
    if ranks is None:
        yield Here(lambda: replace(load_model(model, device, texts=texts), spec=spec))
        return
    from flowcache.runtime.walk_gang import walking_gangs
    from flowcache.worker.walk_rank import WalkSettings

    settings = WalkSettings(spec, reference(model), texts, ranks)
    try:
        with walking_gangs(settings, lambda text: err.print(text, markup=False, soft_wrap=True)) as found:
            yield found
    except KeyboardInterrupt:
        raise FlowcacheError("stopped; what was walked stays, and the same command goes on from there") from None


def _ranks(
    spec: "ModelSpec", device: str | None, gang: int | None, gangs: int | None, address: str | None
) -> "RunOptions | None":
    """None: this process walks. InputError."""
    if gang is None and gangs is None and address is None:
        check_device(device or "cpu")
        return None
    from flowcache.inputs.options import RunOptions
    from flowcache.planner.advice import check_gang
    from flowcache.worker.windows import NOBODY, request_of

    problems = list[Problem]()
    if device != "cpu" and device != "cuda" and device != "auto" and device is not None:
        problems.append(Problem("--device", "", f"got {device[:80]!r}; accepted for gangs: auto, cpu or cuda"))
        device = None
    found = RunOptions(
        gang or 1, gangs, device=device or "auto", address=address, infra_retries=LOST,
        segment_timeout=inf, idle_release=inf,
    )  # fmt: skip
    problems += found.faults([spec])
    problems += check_gang([request_of(spec, NOBODY, 1, None)], {spec.name: spec}, found.gang)
    if problems:
        raise InputError(problems)
    return found


def _shares(text: str) -> list[float]:
    """InputError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each <= 1 for each in found):
        raise InputError([Problem("--budgets", "", f"got {text[:80]!r}; accepted: numbers above 0, at most 1")])
    return [*dict.fromkeys(found)]


def _prompts(spec: "ModelSpec", file: Path | None, n: int | None, seed: int) -> "list[Prompt]":
    """With noise that no bench has. InputError."""
    from flowcache.bench.prompts import draw, read
    from flowcache.worker.calibration import Prompt

    beyond = MOST + 1 + seed
    drawn = draw(spec, n or DRAWN, beyond) if file is None else read(file, n, beyond)
    if len(drawn) < LEAST:
        raise InputError([Problem(str(file), "", f"holds {len(drawn)} prompts; accepted: at least {LEAST}")])
    return [Prompt(each.text, each.seed) for each in drawn]


def _target(text: str) -> "Target":
    """InputError."""
    if text == "off" or text == "converged":
        return text
    raise InputError([Problem("--target", "", f"got {text[:80]!r}; accepted: 'off' or 'converged'")])
