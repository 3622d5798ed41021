"""The summary as text and tables, which Markdown and the page have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowcache.bench.names import OFF, Entry
from flowcache.bench.statistics import Interval, Paired, markdown
from flowcache.bench.summary import ANOTHER, Closeness, Comparison, Line

ABSENT = "-"
COSTS = ("setting", "steps", "chunk forwards", "of off", "FLOPs of off", "seconds", "seconds of off", "K/V, MiB")
CLOSENESS = ("setting", "mean, dB", "median", "p10", f"below {ANOTHER:g} dB")
LIKENESS = ("setting", "SSIM", "ColorVideoVDP, JOD", "captions right", "predicted error J")


@dataclass(frozen=True)
class Section:
    title: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Told:
    """What stands beside the figures. how: by setting, how its steps are taken; left_out: what was not, and why.

    target: of SSIM and ColorVideoVDP, and what comparisons are sorted by. predicted: J, see `sampling.proposal`.
    """

    title: str
    text: str
    target: str
    how: Mapping[Entry, str]
    left_out: Mapping[Entry, str] = field(default_factory=dict)
    predicted: Mapping[Entry, float] = field(default_factory=dict)
    no_cvvdp: str = ""


def sections(
    told: Told, every: Sequence[Line], compared: Sequence[Comparison], more: Sequence[Section] = ()
) -> list[Section]:
    """The first one is the head of the page. every: settings of steps; more: what is said of others."""
    left = [f"{entry.label}: {why}" for entry, why in told.left_out.items()]
    found = [
        Section(told.title, told.text),
        Section("Costs", "Of one window, denoising alone; K/V are what is allocated.", COSTS,
                [_costs(line, told.how.get(line.entry, "")) for line in every]),
        Section("PSNR to off", "", CLOSENESS,
                [_closeness(line.entry, line.off) for line in every if line.entry != OFF]),
        Section("PSNR to converged", "Three times the steps, the right solver, the same noise.", CLOSENESS,
                [_closeness(line.entry, line.converged) for line in every if line.converged]),
        Section("Likeness", _likeness_text(told), LIKENESS, [_likeness(line, told) for line in every]),
        Section(f"Differences on the same prompts, against the closest to {told.target} of at most 5 % more forwards",
                "Ours minus theirs, dB; better: on how many prompts.",
                ("ours", "theirs", "forwards", "to off", "median", "better", "to converged", "median", "better"),
                [_comparison(each) for each in compared]),
        *more,
        Section("Not measured", "\n".join(f"- {each}" for each in left)),
    ]  # fmt: skip
    return [each for each in found if each.rows or each.text and not each.head]


def as_markdown(found: Sequence[Section]) -> str:
    parts = []
    for number, section in enumerate(found):
        parts.append(f"{'##' if number else '#'} {section.title}")
        if section.text:
            parts.append(section.text)
        if section.rows:
            parts.append(markdown(list(section.head), [list(row) for row in section.rows]))
    return "\n\n".join(parts) + "\n"


def _costs(line: Line, how: str) -> list[str]:
    shares = [f"{share:.3f}" for share in (line.forwards_share, line.flops_share)]
    seconds = [f"{line.seconds:.2f}", spread(line.seconds_share, 2)]
    return [
        line.entry.label, how or ABSENT, f"{line.forwards:.0f}", *shares, *seconds, f"{line.kv_bytes / 2**20:.2f}",
    ]  # fmt: skip


def _closeness(entry: Entry, of: Closeness | None) -> list[str]:
    if of is None:
        return [entry.label, *[ABSENT] * (len(CLOSENESS) - 1)]
    return [entry.label, spread(of.mean, 1), f"{of.median:.1f}", f"{of.tenth:.1f}", str(of.another)]


def _likeness_text(told: Told) -> str:
    absent = f" {told.no_cvvdp}." if told.no_cvvdp else ""
    return f"SSIM and ColorVideoVDP to {told.target}; J: of the schedule, from exact walks of one prompt.{absent}"


def _likeness(line: Line, told: Told) -> list[str]:
    figures = ((line.ssim, 4), (line.cvvdp, 2), (line.captions, 3))
    predicted = told.predicted.get(line.entry)
    return [
        line.entry.label, *(spread(value, digits) if value else ABSENT for value, digits in figures),
        ABSENT if predicted is None else f"{predicted:.3g}",
    ]  # fmt: skip


def _comparison(of: Comparison) -> list[str]:
    forwards = f"{of.ours.forwards:.0f} / {of.theirs.forwards:.0f}"
    return [of.ours.entry.label, of.theirs.entry.label, forwards, *paired_cells(of.off), *paired_cells(of.converged)]


def paired_cells(of: Paired | None) -> list[str]:
    return [ABSENT] * 3 if of is None else [spread(of.mean, 1), f"{of.median:.1f}", f"{of.better} of {of.of}"]


def spread(of: Interval, digits: int) -> str:
    """The mean, and its interval where there is one."""
    mean, low, high = (f"{value:.{digits}f}" for value in of)
    return mean if low == high else f"{mean} ({low} to {high})"
