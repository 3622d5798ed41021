"""Trains by a plan: python -m training.train --plan training/plans/skyreels.yaml --out runs/skyreels --processes 2

It resumes what it finds there, to the same bits; log.jsonl in that folder says what is learned (training/README.md).
"""

import argparse
import multiprocessing
import sys
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from flowcache.errors import InputError
from flowcache.families.codecs import PatchCodec, load_codec
from flowcache.families.registry import find
from training.codec import LENGTHS, Refining, fit_codec, save_codec
from training.diffusion import Diffusion
from training.families import FAMILIES
from training.loop import Place, Run, go, trained_task
from training.plan import Plan, read_plan
from training.task import Task

PATIENCE = timedelta(minutes=10)  # with another process that does not answer


@dataclass(frozen=True)
class Options:
    """start: an exported folder, from whose weights and codec the run goes on. begin: at that step of the plan.

    codec: a folder of a codec; without it and `start` one is fitted. minutes: of this call.
    """

    plan: Path
    out: Path
    start: Path | None = None
    begin: int = 0
    codec: Path | None = None
    minutes: float = float("inf")
    processes: int = 1
    save_minutes: float = 2.0


def check(plan: Plan) -> None:
    """ValueError where a stage asks for lengths or shares that its task doesn't have."""
    lengths, shares = {*LENGTHS}, set[str]()
    if plan.task != "refiner":
        family = FAMILIES[plan.task]
        lengths, shares = {*family.lengths}, {each.name for each in fields(family.shares)}
    for number, stage in enumerate(plan.stages):
        for what, names, accepted in (("batch", stage.batch, lengths), ("shares", stage.shares, shares)):
            if unknown := sorted({*names} - accepted):
                known = ", ".join(sorted(accepted)) or "none"
                raise ValueError(f"stages.{number}.{what}: {', '.join(unknown)}; accepted: {known}")


def check_options(options: Options, plan: Plan) -> None:
    """ValueError or InputError where an option does not fit the plan, or what the folder holds."""
    if options.processes < 1:
        raise ValueError(f"--processes {options.processes}; accepted: 1 and more")
    if not 0 <= options.begin < plan.steps:
        raise ValueError(f"--begin {options.begin}; accepted: 0 to {plan.steps - 1}, a step of the plan")
    if options.start and plan.task not in FAMILIES:
        raise ValueError("--start is of no use to a refiner; accepted: --codec, one with a refiner already too")
    if options.start and (family := find(str(options.start)).family) != plan.task:
        raise ValueError(f"--start {options.start}: is of the family {family}; accepted: {plan.task}, as the plan is")
    if (task := trained_task(options.out)) not in (None, plan.task):
        raise ValueError(
            f"--out {options.out}: holds a run of {task}; accepted: an empty folder, or one of {plan.task}"
        )


def prepare(options: Options, plan: Plan) -> None:
    """The run's codec into its folder, from where each process and each later call reads it."""
    folder = options.out / "vae"
    if folder.exists():
        return
    given = options.start / "vae" if options.start else options.codec  # its latents are what the weights know
    codec = load_codec(given) if given else fit_codec()
    assert isinstance(codec, PatchCodec)
    codec.causal = plan.causal if plan.task == "refiner" else FAMILIES[plan.task].causal
    half = folder.with_name("vae.tmp")
    save_codec(codec, half)
    half.rename(folder)


def build(options: Options, plan: Plan) -> Task:
    """The plan's task as it is before its first step."""
    torch.manual_seed(plan.seed)
    codec = load_codec(options.out / "vae")
    assert isinstance(codec, PatchCodec)
    if plan.task == "refiner":
        return Refining(codec)
    family = FAMILIES[plan.task]
    task = Diffusion(family, plan, codec.requires_grad_(False))
    if options.start:
        family.take_up(task.model, options.start)
    return task


def work(options: Options, plan: Plan, place: Place, meeting: str) -> None:
    """One process's part."""
    torch.set_num_threads(1)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # on a CPU too: twice as fast for short sequences
    if place.processes > 1:
        dist.init_process_group(
            "gloo", init_method=meeting, rank=place.rank, world_size=place.processes, timeout=PATIENCE
        )
    run = Run(build(options, plan), plan, options.out, place, options.begin)
    run.resume()
    go(run, options.minutes, options.save_minutes)
    if isinstance(run.average, PatchCodec) and place.rank == 0:
        save_codec(run.average, options.out / "codec")
    if place.processes > 1:
        dist.destroy_process_group()


def train(options: Options) -> None:
    """Until the plan's end or the time is up, from the last checkpoint if there is one. ValueError for a bad plan."""
    plan = read_plan(options.plan)
    try:
        check(plan)
    except ValueError as fault:
        raise ValueError(f"{options.plan}: {fault}") from None
    check_options(options, plan)
    prepare(options, plan)
    with TemporaryDirectory() as folder:
        meeting = f"file://{folder}/group"
        context = multiprocessing.get_context("spawn")  # daemons: they go where the first process goes
        places = [Place(rank, options.processes) for rank in range(options.processes)]
        others = [context.Process(target=work, args=(options, plan, p, meeting), daemon=True) for p in places[1:]]
        for other in others:
            other.start()
        work(options, plan, places[0], meeting)
        for other in others:
            other.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints; resumed where it has one")
    parser.add_argument("--start", type=Path, help="an exported folder, from whose weights and codec it goes on")
    parser.add_argument("--begin", type=int, default=0, help="step of the plan at which it begins")
    parser.add_argument("--codec", type=Path, help="folder of a codec; else that of --start, else one is fitted")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="of this call")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    try:
        train(Options(**vars(parser.parse_args())))
    except (ValueError, InputError) as fault:
        print(fault, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
