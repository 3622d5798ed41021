"""What a checkpoint is, what is wrong with it, and the memory it needs: read off its headers, without its weights."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from flowcache.errors import InputError, Problem
from flowcache.models.codec import codec_part
from flowcache.models.layouts import Layout, layout_of
from flowcache.models.part import Part
from flowcache.models.registry import SPEC_FILE, find
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.flops import kv_bytes
from flowcache.models.skyreels.weights import transformer_part
from flowcache.models.text import load_tokenizer, text_part
from flowcache.records import ModelSpec

NAMED = 3  # faults that the message of `sound` spells out
GIB = 2**30
CODEC_WIDTH = 96  # channels of the Wan VAE at full resolution
CODEC_FRAMES = 32  # full-resolution frames of that width that decoding holds at once, its history included


@dataclass(frozen=True)
class PartReport:
    """`numbers`: learned ones on disk; `precision`: their dtypes there."""

    numbers: int
    precision: str


@dataclass
class Report:
    """What `check` found; `spec` and `config` are None where they can't be read."""

    family: str | None = None
    layout: str | None = None
    spec: ModelSpec | None = None
    config: SkyReelsConfig | None = None
    parts: dict[str, PartReport] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def note(self, error: InputError) -> None:
        self.problems += [problem for problem in error.problems if problem not in self.problems]


@dataclass(frozen=True)
class Memory:
    """Bytes that one rank needs (docs/models.md has the formula)."""

    weights: int
    keys_values: int  # of a whole window, both guidance branches
    activations: int  # an estimate
    codec: int  # an estimate; only rank 0 decodes

    @property
    def total(self) -> int:
        return self.weights + self.keys_values + self.activations + self.codec

    def __str__(self) -> str:
        parts = {"weights": self.weights, "K/V": self.keys_values, "activations": self.activations, "VAE": self.codec}
        spelled = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        return f"{self.total / GIB:.1f} GiB per rank ({spelled})"


def check(folder: Path) -> Report:
    """Every fault of a checkpoint in either layout; raises nothing for a damaged one."""
    report = Report()
    try:
        layout = layout_of(folder)
        if layout:
            report.layout = layout.name
            report.problems += layout.missing()
        report.spec = find(str(folder))
        report.family = report.spec.family
    except InputError as error:
        report.note(error)
    if report.layout:
        _look(layout, report)
    return report


def _look(layout: Layout, report: Report) -> None:
    """Into each part that is there."""
    makers = {"transformer": transformer_part, "vae": codec_part, "text_encoder": text_part}
    for name, make in makers.items():
        path = getattr(layout, name)
        if not path.exists() or path / "config.json" in (Path(problem.file) for problem in report.problems):
            continue
        try:
            part: Part = make(path)
        except InputError as error:
            report.note(error)
            continue
        report.parts[name] = PartReport(part.numbers, part.precision)
        report.problems += part.problems()
        if name == "transformer":
            report.config = part.module.config
    if layout.tokenizer.exists():
        try:
            load_tokenizer(layout.tokenizer)
        except InputError as error:
            report.note(error)


def sound(name: str) -> ModelSpec:
    """`find`, and the headers of a published checkpoint's weights looked through; InputError names the damage."""
    spec = find(name)
    folder = Path(spec.path)
    problems = [] if (folder / SPEC_FILE).exists() else check(folder).problems
    if problems:
        faults = "; ".join(map(str, problems[:NAMED]))
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise InputError([Problem("model", "", f"{name!r} is damaged: {faults}{more}")])
    return spec


def memory(spec: ModelSpec, config: SkyReelsConfig, ranks: int, element: int = 2) -> Memory:
    """What each of `ranks` ranks needs at the spec's size: weights are whole on each, K/V and activations shared out.

    element: bytes of a value, 2 in bfloat16.
    """
    pixels = spec.width * spec.height
    tokens = spec.chunk * pixels // spec.size_step**2  # of a chunk
    chunks, width = spec.window // spec.chunk, config.dim
    own = math.ceil(tokens / ranks)
    # hidden state and its fp32 copies for norm and modulation, then queries, keys, values, their output; or the FFN
    working = own * (width * 4 * 4 + max(4 * width, 2 * config.ffn_dim) * element)
    residuals = own * width * element * 2 * chunks  # reuse keeps one for each chunk and guidance branch
    return Memory(
        weights=element * _numbers(config),
        keys_values=kv_bytes(config, 2 * chunks * tokens, element) // ranks,
        activations=working + residuals,
        codec=4 * CODEC_FRAMES * CODEC_WIDTH * pixels,
    )


def _numbers(config: SkyReelsConfig) -> int:
    """Learned numbers of a transformer of this shape."""
    import torch

    from flowcache.models.skyreels.transformer import SkyReelsTransformer

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SkyReelsTransformer(config).parameters())
