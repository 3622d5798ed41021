"""`flowcache calibrate`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowcache.cli import options
from flowcache.cli.bench import MOST
from flowcache.cli.common import Json, check_device, out, print_json
from flowcache.cli.targets import check_here, home
from flowcache.errors import InputError, Problem

if TYPE_CHECKING:
    from flowcache.bench.statistics import Interval
    from flowcache.records import ModelSpec
    from flowcache.sampling.dry_run import WindowWork
    from flowcache.worker.calibration import Calibration, Calibrator, Outcome, Preset, Prompt, Target

LEAST, DRAWN = 6, 16  # prompts


def calibrate(
    model: Annotated[str, typer.Argument(help="The path of a checkpoint's folder, or a bundled name.")],
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with a prompt a line, in place of drawn ones.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=LEAST, max=999, help="Prompts: 16 drawn ones, or all of the file.")
    ] = None,
    budgets: Annotated[str, typer.Option(help="Shares of off's chunk forwards, with commas between them.")] = (
        "0.6,0.45,0.3,0.2,0.15"
    ),
    target: Annotated[str, typer.Option(help="What to come close to: off, or converged (three times the steps).")] = (
        "off"
    ),
    to: Annotated[
        Path | None, typer.Option("--out", "--to", help="Folder for calibration.json; else the checkpoint's own.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for walks: what lies there is not walked again.")] = Path(
        "calibration-walks"
    ),
    schedules: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="So many are walked at each budget to find one; 0: evenly spaced steps."),
    ] = 60,
    seed: Annotated[int, typer.Option(min=0, max=100_000, help="Of prompts and noise; none is one of bench's.")] = 0,
    tflops: options.Tflops = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
    residuals: Annotated[
        bool,
        typer.Option("--residuals", help="Find nothing: note of the budgets that are there what quality_floor needs."),
    ] = False,
) -> None:
    """Find which steps policy flowcache computes at each budget, and what it adds to its solver, for one checkpoint at
    its own steps and guidance.

    Half of the prompts are worked with; the others decide, with noise of their own: where what was found does not
    surely bring them closer to the target than fewer steps within the same forwards, that budget keeps fewer steps.
    What it takes is said before it starts.
    """
    from flowcache.cache.fixed_steps import Calibration
    from flowcache.families import calibrations
    from flowcache.families.registry import find, folder_digest

    shares, goal, spec = _shares(budgets), _target(target), find(model)
    if not Path(spec.path).is_dir():
        raise InputError([Problem("model", "", f"{model!r} is a single file; accepted: a checkpoint's folder")])
    texts = _prompts(spec, home(prompts) if prompts else None, n, seed)
    folder, work = home(to or Path(spec.path)), home(work)
    check_here(folder, "--out")
    check_here(work, "--work")
    check_device(device)
    digest = folder_digest(Path(spec.path), without=calibrations.FILE)
    before = calibrations.read(folder, digest) if (folder / calibrations.FILE).is_file() else ()
    calibrator = _calibrator(replace(spec, digest=digest, calibrations=()), texts, device, goal, work, schedules)
    at, half = calibrator.walker.conditions(), len(texts) // 2
    known = [each for each in before if each.conditions == at and isinstance(each, Calibration)]
    if residuals and not known:
        raise InputError(
            [Problem("--residuals", "", f"{folder} has no fitted budget at the checkpoint's own settings")]
        )
    shares = [each.budget for each in known] if residuals else shares
    works = (calibrator.recording if residuals else calibrator.works)(shares, half, len(texts) - half)
    cost = _cost(calibrator, works, len(texts), tflops)
    tell = (lambda text: None) if as_json else lambda text: out.print(text, markup=False)
    hours = f"{cost['gpu_hours']:.2g} GPU hours ({cost['rests_on']})"
    tell(f"{cost['prompts']} prompts, {cost['forwards']:,} chunk forwards at most: {hours}")
    make = partial(_recorded, calibrator, known) if residuals else partial(_calibrated, calibrator, shares)
    made, told = make(texts, tell)
    kept = [each for each in before if each.budget not in shares or each.conditions != at]
    calibrations.write(folder, digest, [*kept, *made])
    if as_json:
        print_json({**cost, "file": str(folder / calibrations.FILE), "budgets": told})


def _calibrated(
    calibrator: "Calibrator", shares: Sequence[float], texts: "Sequence[Prompt]", tell: Callable[[str], None]
) -> "tuple[list[Preset], list[dict[str, Any]]]":
    """The presets, and what is said of each budget."""
    made, told, half = list["Preset"](), list[dict[str, Any]](), len(texts) // 2
    for share in shares:
        outcome = calibrator.calibrate(share, texts[:half], texts[half:])
        told.append(_told(calibrator, outcome))
        made += [outcome.preset] if outcome.preset else []
        tell(_line(told[-1]))
    return made, told


def _recorded(
    calibrator: "Calibrator", known: "Sequence[Calibration]", texts: "Sequence[Prompt]", tell: Callable[[str], None]
) -> "tuple[list[Calibration], list[dict[str, Any]]]":
    """As `_calibrated`, of presets that are there."""
    half = len(texts) // 2
    made = [calibrator.recorded(each, texts[:half], texts[half:]) for each in known]
    told = [{"budget": each.budget, "predicted_error": each.predicted} for each in made]
    for each in made:
        tell(f"budget {each.budget:g}: residuals of {len(texts) - half} prompts are noted")
    return made, told


def _calibrator(
    spec: "ModelSpec", texts: "Sequence[Prompt]", device: str, target: "Target", work: Path, schedules: int
) -> "Calibrator":
    """Of a checkpoint as it is without a calibration, so that what was walked holds for any."""
    from flowcache.families.registry import load_model
    from flowcache.worker.calibration import Calibrator

    work.mkdir(parents=True, exist_ok=True)
    model = load_model(spec.path, device, texts=[each.text for each in texts])
    return Calibrator(replace(model, spec=spec), target, work, schedules)


def _cost(
    calibrator: "Calibrator", works: "Sequence[tuple[int, WindowWork]]", prompts: int, tflops: float | None
) -> dict[str, Any]:
    """gpu_hours: as `flowcache plan` counts for one GPU."""
    from flowcache.families.settings import config_of
    from flowcache.planner.hardware import EFFICIENCY, TFLOPS, Node
    from flowcache.planner.throughput import assumed

    speed = assumed(tflops or TFLOPS, EFFICIENCY, Node().link)
    return {
        "prompts": prompts,
        "forwards": sum(count * work.forwards for count, work in works),
        "gpu_hours": speed.windows(config_of(calibrator.model.spec), works) / 3600,
        "rests_on": speed.rests_on[0],
    }


def _told(calibrator: "Calibrator", outcome: "Outcome") -> dict[str, Any]:
    from flowcache.bench.statistics import interval, paired
    from flowcache.worker.calibration import Calibration, FewerSteps

    made, gain = outcome.preset, paired(outcome.best, outcome.plain)
    return {
        "budget": outcome.budget,
        "most_forwards": calibrator.walker.allowed(outcome.budget),
        "forwards": calibrator.walker.forwards(made) if made else None,
        "computed": made.computed if isinstance(made, Calibration) else None,
        "steps": made.steps if isinstance(made, FewerSteps) else None,
        "lag": made.lag if isinstance(made, FewerSteps) else None,
        "solver": made.solver if isinstance(made, FewerSteps) else None,
        "corrected": outcome.corrected,
        "predicted_error": made.predicted if isinstance(made, Calibration) else None,
        "fewer_steps": interval(outcome.plain),
        "found": interval(outcome.best),
        "gain": {"mean": gain.mean, "median": gain.median, "better": gain.better, "of": gain.of},
    }


def _line(told: dict[str, Any]) -> str:
    gain = told["gain"]
    return (
        f"budget {told['budget']:g}: {_kept(told)}; latents to the target {_db(told['fewer_steps'])} by fewer steps, "
        f"{_db(told['found'])} as found: {_db(gain['mean'])}, median {gain['median']:.1f}, "
        f"better on {gain['better']} of {gain['of']} prompts"
    )


def _kept(told: dict[str, Any]) -> str:
    if computed := told["computed"]:
        solved = "corrected" if told["corrected"] else "the solver alone"
        return f"{len(computed)} steps ({', '.join(map(str, computed))}), {told['forwards']} chunk forwards, {solved}"
    if told["steps"]:
        solver = "" if told["solver"] == "own" else f" by {told['solver']}"
        return f"a run of {told['steps']} steps with a lag of {told['lag']}{solver}, {told['forwards']} chunk forwards"
    return "fewer steps stay"


def _db(found: "Interval") -> str:
    """With its 95 % confidence interval."""
    return f"{found[0]:.1f} dB ({found[1]:.1f} to {found[2]:.1f})"


def _shares(text: str) -> list[float]:
    """InputError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each <= 1 for each in found):
        raise InputError([Problem("--budgets", "", f"got {text[:80]!r}; accepted: numbers above 0, at most 1")])
    return found


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
