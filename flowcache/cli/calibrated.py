"""What `flowcache calibrate` says of what it takes, and of what it has found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcache.bench.statistics import Interval
    from flowcache.worker.calibration import Outcome, WindowWork
    from flowcache.worker.windows import Windows


def cost(
    windows: "Windows", works: "Sequence[tuple[int, WindowWork]]", prompts: int, tflops: float | None, gang: int
) -> dict[str, Any]:
    """works: see `worker.calibration.works`. gang_hours, gpu_hours: as `flowcache plan` counts for gangs of so many
    ranks."""
    from flowcache.families.settings import config_of
    from flowcache.planner.hardware import EFFICIENCY, TFLOPS, Node
    from flowcache.planner.throughput import assumed

    speed = assumed(tflops or TFLOPS, EFFICIENCY, Node().link)
    hours = speed.windows(config_of(windows.spec), works, gang) / 3600
    speeds, _, link = speed.rests_on
    return {
        "prompts": prompts,
        "forwards": sum(count * work.forwards for count, work in works),
        "gang": gang,
        "gang_hours": hours,
        "gpu_hours": gang * hours,
        "rests_on": speeds if gang == 1 else f"{speeds}; {link}",
    }


def cost_line(cost: dict[str, Any]) -> str:
    gang = "" if cost["gang"] == 1 else f"{cost['gang_hours']:.2g} hours of a gang of {cost['gang']}, "
    hours = f"{gang}{cost['gpu_hours']:.2g} GPU hours ({cost['rests_on']})"
    return f"{cost['prompts']} prompts, {cost['forwards']:,} chunk forwards at most: {hours}"


def told(windows: "Windows", outcome: "Outcome") -> dict[str, Any]:
    from flowcache.bench.statistics import interval, paired
    from flowcache.worker.calibration import Calibration, FewerSteps

    made, gain = outcome.preset, paired(outcome.best, outcome.plain)
    return {
        "budget": outcome.budget,
        "most_forwards": windows.allowed(outcome.budget),
        "forwards": windows.forwards(made) if made else None,
        "computed": made.computed if isinstance(made, Calibration) else None,
        "first_computed": made.steps_of(0) if isinstance(made, Calibration) else None,
        "steps": made.steps if isinstance(made, FewerSteps) else None,
        "lag": made.lag if isinstance(made, FewerSteps) else None,
        "solver": made.solver if isinstance(made, FewerSteps) else None,
        "corrected": outcome.corrected,
        "predicted_error": made.predicted if isinstance(made, Calibration) else None,
        "fewer_steps": interval(outcome.plain),
        "found": interval(outcome.best),
        "gain": {"mean": gain.mean, "median": gain.median, "better": gain.better, "of": gain.of},
    }


def line(told: dict[str, Any]) -> str:
    gain = told["gain"]
    return (
        f"budget {told['budget']:g}: {_kept(told)}; latents to the target {_db(told['fewer_steps'])} by fewer steps, "
        f"{_db(told['found'])} as found: {_db(gain['mean'])}, median {gain['median']:.1f}, "
        f"better on {gain['better']} of {gain['of']} prompts"
    )


def _kept(told: dict[str, Any]) -> str:
    if computed := told["computed"]:
        solved = "corrected" if told["corrected"] else "the solver alone"
        first, steps = told["first_computed"], f"{len(computed)} steps ({', '.join(map(str, computed))})"
        more = "" if first == computed else f", of a window's first chunk {len(first)} ({', '.join(map(str, first))})"
        return f"{steps}{more}, {told['forwards']} chunk forwards, {solved}"
    if told["steps"]:
        solver = "" if told["solver"] == "own" else f" by {told['solver']}"
        return f"a run of {told['steps']} steps with a lag of {told['lag']}{solver}, {told['forwards']} chunk forwards"
    return "fewer steps stay"


def _db(found: "Interval") -> str:
    """With its 95 % confidence interval."""
    return f"{found[0]:.1f} dB ({found[1]:.1f} to {found[2]:.1f})"
