"""`flowcache calibrate`."""

from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flowcache.cli.common import Json, check_device, out, print_json
from flowcache.cli.targets import check_here, home
from flowcache.errors import InputError, Problem

if TYPE_CHECKING:
    from flowcache.worker.calibration import Outcome, Prompt

LEAST = 6  # prompts


def calibrate(
    model: Annotated[str, typer.Argument(help="The path of a checkpoint's folder, or a bundled name.")],
    prompts: Annotated[Path, typer.Option(help="A text file with a prompt a line, at least 6.")],
    budgets: Annotated[str, typer.Option(help="Shares of the steps, with commas between them.")] = "0.6,0.45,0.3",
    target: Annotated[str, typer.Option(help="What to come close to: off, or converged (three times the steps).")] = (
        "off"
    ),
    to: Annotated[Path | None, typer.Option(help="Folder for calibration.json; else the checkpoint's own.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for exact walks: what lies there is not recorded again.")] = Path(
        "calibration-walks"
    ),
    schedules: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="So many are walked at each budget to find one; 0: evenly spaced steps."),
    ] = 60,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the first prompt's noise.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Find which steps policy flowcache computes at each budget, and what it adds to its solver, for one checkpoint at
    its own steps and guidance.

    Two thirds of the prompts are worked with; the others decide, with noise of their own: where what was found does not
    bring them closer to the target, by mean and median, that budget has evenly spaced steps and the solver alone.
    """
    from flowcache.families import calibrations
    from flowcache.families.registry import find, folder_digest, load_model
    from flowcache.worker.calibration import Calibrator

    shares, texts, goal = _shares(budgets), _prompts(home(prompts), seed), _target(target)
    spec = find(model)
    if not Path(spec.path).is_dir():
        raise InputError([Problem("model", "", f"{model!r} is a single file; accepted: a checkpoint's folder")])
    folder, work, split = home(to or Path(spec.path)), home(work), len(texts) * 2 // 3
    check_here(folder, "--to")
    check_here(work, "--work")
    check_device(device)
    work.mkdir(parents=True, exist_ok=True)
    calibrator = Calibrator(load_model(model, device, texts=[each.text for each in texts]), goal, work, schedules)
    forwards = calibrator.forwards(shares, split, len(texts) - split)
    if not as_json:
        out.print(f"{spec.name}: {split} prompts to fit, {len(texts) - split} to judge, {forwards:,} chunk forwards")
    outcomes = []
    for share in shares:
        outcomes.append(calibrator.calibrate(share, texts[:split], texts[split:]))
        if not as_json:
            out.print(_line(outcomes[-1]), markup=False)
    new = [each.calibration for each in outcomes]
    done = {(each.budget, each.conditions) for each in new}
    kept = [each for each in spec.calibrations if (each.budget, each.conditions) not in done]
    folder.mkdir(parents=True, exist_ok=True)
    calibrations.write(folder, folder_digest(Path(spec.path), without=calibrations.FILE), [*kept, *new])
    if as_json:
        file = str(folder / calibrations.FILE)
        print_json({"forwards": forwards, "file": file, "budgets": [_told(each) for each in outcomes]})


def _told(outcome: "Outcome") -> dict[str, Any]:
    made = outcome.calibration
    return {"budget": made.budget, "computed": made.computed, "corrected": outcome.corrected} | {
        name: {"mean": mean(found), "median": median(found)}
        for name, found in (("plain", outcome.plain), ("best", outcome.best))
    }


def _line(outcome: "Outcome") -> str:
    made, (before, after) = outcome.calibration, (outcome.plain, outcome.best)
    found = "corrected" if outcome.corrected else "the solver alone"
    steps = f"{len(made.computed)} of {made.conditions.steps} steps ({', '.join(map(str, made.computed))})"
    means, medians = (f"{of(before):.1f} -> {of(after):.1f}" for of in (mean, median))
    return f"budget {made.budget:g}: {steps}, latents to the target {means} dB (median {medians}): {found}"


def _shares(text: str) -> list[float]:
    """InputError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each <= 1 for each in found):
        raise InputError([Problem("--budgets", "", f"got {text[:80]!r}; accepted: numbers above 0, at most 1")])
    return found


def _prompts(file: Path, seed: int) -> "list[Prompt]":
    """InputError."""
    from flowcache.worker.calibration import Prompt

    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([Problem(str(file), "", f"can't be read: {error}")]) from None
    if len(lines) < LEAST:
        raise InputError([Problem(str(file), "", f"holds {len(lines)} prompts; accepted: at least {LEAST}")])
    return [Prompt(line, seed + number) for number, line in enumerate(lines)]


def _target(text: str) -> 'Literal["off", "converged"]':
    """InputError."""
    if text == "off" or text == "converged":
        return text
    raise InputError([Problem("--target", "", f"got {text[:80]!r}; accepted: 'off' or 'converged'")])
