"""`flowcache models`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flowcache.cli.common import Json, err, print_json, print_rows
from flowcache.errors import InputError, Problem

if TYPE_CHECKING:
    from flowcache.families.policy_settings import PolicyDeclaration


def models(
    name: Annotated[
        str | None, typer.Argument(help="A bundled name or a checkpoint's path; none: list all. Or: check.")
    ] = None,
    path: Annotated[str | None, typer.Argument(help="After check: the checkpoint to look through.")] = None,
    as_json: Json = False,
) -> None:
    """The bundled models, or what one model can render: sizes, lengths, defaults, policies.

    `flowcache models check PATH` looks through a checkpoint: its layout, size and precision, everything that is
    missing or damaged (exit code 2), and the memory that each gang size needs.
    """
    from flowcache.families.registry import bundled, find

    if name == "check" and path is not None:
        check_model(path, as_json)
        return
    if path is not None:
        raise InputError([Problem("models", "", f"got {name} {path}; accepted: one NAME, or check PATH")])
    specs = [find(each) for each in ([name] if name else bundled())]
    if as_json:
        print_json([asdict(spec) for spec in specs])
        return
    for spec in specs:
        print_spec(spec)


def print_spec(spec: Any) -> None:
    from flowcache.families.known import family

    policies = family(spec.family).policies
    fresh = [spec.first_chunk_frames + k * spec.chunk_frames for k in range(3)]
    sizes = ", ".join(f"{w}x{h}" for w, h in spec.sizes) or f"multiples of {spec.size_step}"
    presets = f"; presets {', '.join(spec.reuse)}" if spec.reuse else ""
    rows = {
        "family": spec.family,
        "digest": spec.digest[:16],
        "sizes": sizes,
        "lengths": f"{fresh[0]}, {fresh[1]}, {fresh[2]} ... frames; a continuation {spec.chunk_frames}, "
        f"{2 * spec.chunk_frames} ...",
        "default": f"{spec.width}x{spec.height}, {spec.frames} frames at {spec.fps} fps, {spec.steps} steps, "
        f"guidance {spec.guidance:g}",
        "policies": ", ".join(policy.name for policy in policies) + presets,
        "words": " ".join(spec.vocabulary) or "any",
    }
    rows |= {f"policy {policy.name}": own for policy in policies if (own := own_settings(policy))}
    print_rows(spec.name, rows)


def own_settings(policy: "PolicyDeclaration") -> str:
    """What the manual can't list: settings that this policy alone has."""
    from flowcache.families.policy_settings import SETTINGS

    own = {key: setting for key, setting in policy.settings.items() if key not in SETTINGS}
    defaults = {key: "" if setting.default is None else f" (else {setting.default})" for key, setting in own.items()}
    return "; ".join(f"{key}: {setting.words}{defaults[key]}" for key, setting in own.items())


def check_model(path: str, as_json: bool) -> None:
    """`flowcache models check PATH`."""
    from flowcache.families.check import check
    from flowcache.families.known import family
    from flowcache.families.memory import memory
    from flowcache.families.registry import folder_of
    from flowcache.records import Precision

    report = check(folder_of(path), path)
    needs, sharded, eight, steps = {}, {}, {}, {}
    if report.spec and report.config:
        spec = report.spec
        tokens = spec.chunk_tokens(spec.width, spec.height)
        sizes = [ranks for ranks in (1, 2, 4, 8, 16) if ranks <= tokens]
        needs = {ranks: memory(spec, report.config, ranks) for ranks in sizes}
        sharded = {ranks: memory(spec, report.config, ranks, sharded=True) for ranks in sizes[1:]}
        eight = {ranks: memory(spec, report.config, ranks, precision=Precision(weights="int8")) for ranks in sizes[:1]}
    if report.spec and not report.problems:
        owner = family(report.spec.family)
        steps = owner.preset_steps(report.spec, owner.layout(Path(report.spec.path)))
    if as_json:
        parts = {name: asdict(part) for name, part in report.parts.items()}
        whole, shards, bits = (
            {ranks: asdict(need) | {"total": need.total} for ranks, need in found.items()}
            for found in (needs, sharded, eight)
        )
        problems, warnings = ([asdict(each) for each in found] for found in (report.problems, report.warnings))
        document = {"family": report.family, "layout": report.layout, "parts": parts, "problems": problems}
        document |= {"warnings": warnings}
        found = {"bytes_per_rank": whole, "bytes_per_rank_sharded": shards, "bytes_per_rank_8_bits": bits}
        found |= {"steps_computed": steps}
        print_json({**document, **found, "exit_code": 2 if problems else 0})
    else:
        rows = {"family": report.family or "unknown", "layout": report.layout or "unknown"}
        rows |= {name: f"{part.numbers:,} numbers, {part.precision}" for name, part in report.parts.items()}
        rows |= {f"gang of {ranks}": str(need) for ranks, need in needs.items()}
        rows |= {f"{ranks}, weights sharded": str(need) for ranks, need in sharded.items()}
        rows |= {f"gang of {ranks}, 8 bits": f"{need}, with --weights int8 or fp8" for ranks, need in eight.items()}
        if report.spec:
            rows |= {preset: f"computes {count} of {report.spec.steps} steps" for preset, count in steps.items()}
        print_rows(path, rows)
        for warning in report.warnings:
            err.print(f"[yellow]warning:[/] {escape(str(warning))}", soft_wrap=True)
        for problem in report.problems:
            err.print(f"[red]damaged:[/] {escape(str(problem))}", soft_wrap=True)
    raise typer.Exit(2 if report.problems else 0)
