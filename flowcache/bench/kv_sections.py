"""What the rows say of K/V: figures of each choice, and differences on the same prompts to what is simpler."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowcache.bench.names import KV_ALL
from flowcache.bench.sections import ABSENT, Section, paired_cells, spread
from flowcache.bench.statistics import Interval, Paired
from flowcache.bench.summary import ANOTHER, Line, difference, reached
from flowcache.bench.table import Row, of_entries

SIMPLER = {"kv-sink": ("kv-recent",), "kv-compressed": ("kv-recent", "kv-sink")}  # what each must be better than
COSTS = ("setting", "K/V, MiB", "of all", "chunk forwards", "FLOPs of all", "seconds", "seconds of all")
CLOSENESS = ("setting", "mean, dB", "median", "p10", f"below {ANOTHER:g} dB", "SSIM", "ColorVideoVDP, JOD")
DRIFT = (
    "setting", "PSNR of the first quarter, dB", "of the last", "drift", "captions right", "in the first", "in the last",
    "drift of the mean colour",
)  # fmt: skip
BETTER = ("ours", "theirs", "K/V of all", "PSNR", "median", "better", "of the last quarter", "median", "better")


@dataclass(frozen=True)
class Comparison:
    """Of a choice of K/V with the closest simpler one that holds no more of them."""

    ours: Line
    theirs: Line
    whole: Paired | None
    last: Paired | None


def kv_comparisons(rows: Sequence[Row], every: Sequence[Line]) -> list[Comparison]:
    """every: the rows' lines."""
    by_entry, found = of_entries(rows), list[Comparison]()
    for ours in every:
        named = SIMPLER.get(ours.entry.policy, ())
        simpler = [line for line in every if line.entry.policy in named and line.kv_bytes <= ours.kv_bytes]
        if not simpler:
            continue
        theirs = max(simpler, key=reached)
        pair = by_entry[ours.entry], by_entry[theirs.entry]
        whole, last = (difference(*pair, column) for column in ("psnr", "psnr_last"))
        found.append(Comparison(ours, theirs, whole, last))
    return found


def kv_sections(every: Sequence[Line], compared: Sequence[Comparison], no_cvvdp: str = "") -> list[Section]:
    """no_cvvdp: why there is no ColorVideoVDP."""
    absent = f" {no_cvvdp}." if no_cvvdp else ""
    own = [line for line in every if line.entry.keeps]
    less = [line for line in own if line.entry != KV_ALL]
    return [
        Section("K/V: costs", "Of one video, denoising alone; K/V are what is allocated, in all layers. FLOPs are the "
                "forwards': what choosing tokens takes is in the seconds.", COSTS, [_costs(line) for line in own]),
        Section("K/V: PSNR to all of them", f"Every step computed, the same noise.{absent}", CLOSENESS,
                [_closeness(line) for line in less]),
        Section("K/V: drift", "From the first quarter of the frames to the last; colours of 0 to 255, RGB distance.",
                DRIFT, [_drift(line) for line in own]),
        Section("K/V: differences on the same prompts, against the closest simpler choice of no more bytes",
                "Ours minus theirs, dB; better: on how many prompts.", BETTER,
                [_comparison(each) for each in compared]),
    ]  # fmt: skip


def _costs(line: Line) -> list[str]:
    held = [f"{line.kv_bytes / 2**20:.2f}", f"{line.kv_share:.3f}", f"{line.forwards:.0f}", f"{line.flops_share:.3f}"]
    return [line.entry.label, *held, f"{line.seconds:.2f}", spread(line.seconds_share, 2)]


def _closeness(line: Line) -> list[str]:
    of, likeness = line.off, [_shown(line.ssim, 4), _shown(line.cvvdp, 2)]
    figures = [spread(of.mean, 1), f"{of.median:.1f}", f"{of.tenth:.1f}", str(of.another)] if of else [ABSENT] * 4
    return [line.entry.label, *figures, *likeness]


def _drift(line: Line) -> list[str]:
    of = line.drift
    if of is None:
        return [line.entry.label, *[ABSENT] * (len(DRIFT) - 1)]
    db = [_shown(each, 1) for each in (of.first, of.last, of.psnr)]
    captions = [_shown(each, 3) for each in (line.captions, of.captions_first, of.captions_last)]
    return [line.entry.label, *db, *captions, _shown(of.colour, 1)]


def _shown(of: Interval | None, digits: int) -> str:
    return spread(of, digits) if of else ABSENT


def _comparison(of: Comparison) -> list[str]:
    held = f"{of.ours.kv_share:.3f} / {of.theirs.kv_share:.3f}"
    return [of.ours.entry.label, of.theirs.entry.label, held, *paired_cells(of.whole), *paired_cells(of.last)]
