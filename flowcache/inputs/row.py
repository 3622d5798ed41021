"""One manifest row against its model: what it renders, or why it cannot."""

import re
from typing import Any

from pydantic import ValidationError

from flowcache.errors import Problem
from flowcache.families.base import Asked
from flowcache.families.known import family
from flowcache.inputs import lengths
from flowcache.inputs.schema import (
    ACCEPTS,
    MAX_FRAMES,
    MAX_SIDE,
    MAX_WINDOW,
    Row,
    RowDefaults,
    ShotRow,
    faults,
    path_name,
    shown,
)
from flowcache.inputs.shape import misshapen, without
from flowcache.records import LATER, OWN, MediaInfo, ModelSpec, Rate, Shot

Place = tuple[str, int]  # a manifest as messages name it, and a row of it
Loc = tuple[int | str, ...]  # where in a row: ("shots", 1, "frames")
OF_MODEL = ("width", "height", "fps", "seed", "guidance", "steps", "ar_step", "segment", "negative_prompt")
LOOK = (*OF_MODEL, *LATER)


class ReadRow:
    """One row past the check of types, and what was found wrong with it.

    `says`: the row without its faulty fields. `bad`: where those are; nothing more can be said of them.
    `video`: the row's id, where it is its own. `brief`: only whether it has a problem is of interest. `base`: its
    manifest as it was named, "" where there is but one; `file`: as messages name it.
    """

    def __init__(self, file: str, number: int, brief: bool = False, base: str = ""):
        self.file, self.number, self.brief, self.base = file, number, brief, base
        self.place: Place = file, number
        self.says, self.bad = Row(), set[Loc]()
        self.video: str | None = None
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def read(self, fields: dict[str, Any]) -> None:
        """Check types and ranges."""
        if fault := misshapen(fields):
            self.fault((), fault)
            self.bad.add(())
            return
        try:
            self.says = Row.model_validate(fields)
        except ValidationError as error:
            if self.brief:
                return self.fault((), "is at fault")
            for loc, message in faults(error, Row, ACCEPTS):
                self.fault(loc, message)
                self.bad.add(loc[:3] if loc[0] == "shots" else loc[:1])  # of a shot one field, else the whole field
            self.says = Row.model_validate(without(fields, self.bad))

    def good(self, *loc: int | str) -> bool:
        return not self.bad or not any(loc[: len(bad)] == bad for bad in self.bad)

    def fault(self, loc: Loc, message: str) -> None:
        self.problems.append(Problem(self.file, path_name(loc), message, self.number, self.video))

    def warn(self, loc: Loc, message: str) -> None:
        self.warnings.append(Problem(self.file, path_name(loc), message, self.number, self.video))


def look(row: ReadRow, spec: ModelSpec, defaults: RowDefaults) -> dict[str, Any]:
    """Fields whose default comes from the job, else the model; None where the row's own is faulty."""
    owner, values = family(spec.family), {}
    own = {name: value for name, value in vars(row.says).items() if value is not None}
    of_job, of_model = vars(defaults), vars(spec)
    of_model = {name: of_model.get(name) for name in OF_MODEL} | {**owner.defaults(spec)}
    for name in LOOK:
        chosen = own.get(name)
        if chosen is None and (chosen := of_job[name]) is None:
            chosen = of_model.get(name)
        values[name] = chosen if row.good(name) else None
    if values["steps"] is not None and values["steps"] > spec.max_steps:
        accepted = f"a whole number from 1 to {spec.max_steps:,} with {spec.name}"
        row.fault(("steps",), f"got {values['steps']:,}{_origin(row, 'steps')}; accepted: {accepted}")
    _check_size(row, values["width"], values["height"], spec)
    media = {name: own.get(name) for name in ("image", "video", "end_image")}
    for name, message in owner.check(Asked(values | media, frozenset(own)), spec):
        row.fault((name,), message)
    _check_traits(row, values, spec)
    negative = values["negative_prompt"]
    return values | {"negative_prompt": owner.negative_prompts().get(negative, negative)}


def windows(row: ReadRow, spec: ModelSpec, values: dict[str, Any]) -> ModelSpec:
    """The model as the row wants it, its windows whole chunks with room for new ones; as it is after a fault."""
    asked, before = spec.asked(values), len(row.problems)
    for name in ("base_num_frames", "overlap_history"):
        near = lengths.near_frames(values[name] or 1, asked, True, MAX_WINDOW)
        if values[name] is not None and near != [values[name]]:
            given = f"got {shown(values[name])}{_origin(row, name)}; nearest {_either(near)}"
            row.fault((name,), f"{given}; accepted: {_lengths(asked, True)} with chunks of {asked.chunk} latent frames")
    if len(row.problems) == before and asked.overlap >= asked.window:
        window, overlap = asked.video_frames(asked.window), asked.overlap_frames
        said = ("overlap_history", "base_num_frames", "causal_block_size")
        name = next(name for name in said if values[name] is not None)
        given = (
            f"got {shown(values[name])}{_origin(row, name)}, but {overlap} of the {window} frames of a window come from"
        )
        row.fault((name,), f"{given} the one before; accepted: what leaves room for new ones")
    return asked if len(row.problems) == before else spec


def _check_traits(row: ReadRow, values: dict[str, Any], spec: ModelSpec) -> None:
    """What the model's family has no use for."""
    traits, negative = family(spec.family).traits, values["negative_prompt"]
    if negative and not traits.negative_prompt and negative not in traits.negatives:
        accepted = f"accepted: {' or '.join(map(repr, traits.negatives)) or 'none'}"
        row.fault(("negative_prompt",), f"does not go with {spec.name}, which has no such text; {accepted}")
    for name in OWN:
        if values[name] is not None and name not in traits.fields:
            row.fault((name,), f"does not go with {spec.name}; accepted: none")
            values[name] = None  # nothing more follows from it


def _origin(row: ReadRow, name: str) -> str:
    return "" if getattr(row.says, name) is not None else " (default)"


def _check_size(row: ReadRow, width: int | None, height: int | None, spec: ModelSpec) -> None:
    if spec.sizes:
        if width is not None and height is not None and (width, height) not in spec.sizes:
            known = ", ".join(f"{w}x{h}" for w, h in lengths.near_sizes(width, height, spec))
            given = f"got {shown(width)}x{shown(height)}"
            row.fault(("width, height",), f"{given}; accepted with {spec.name}, nearest first: {known}")
        return
    for name, pixels in (("width", width), ("height", height)):
        near = [] if pixels is None else lengths.near_sides(pixels, spec, MAX_SIDE)
        if near and near != [pixels]:
            given = f"got {shown(pixels)}{_origin(row, name)}; nearest {_either(near)}"
            row.fault((name,), f"{given}; accepted: multiples of {spec.size_step} up to {MAX_SIDE}")


def shots(row: ReadRow, spec: ModelSpec, fps: Rate | None, defaults: RowDefaults) -> tuple[Shot, ...]:
    """The row's shots with their lengths; those of a faulty one are 0."""
    found, written = [], _written_shots(row)
    for index, (loc, shot) in enumerate(written):
        cut = _cut(row, index, loc, getattr(shot, "cut", None))
        # An end picture fills the last chunk's end.
        ends = (
            bool(getattr(written[index + 1][1], "cut", None))
            if index + 1 < len(written)
            else row.says.end_image is None
        )
        frames = _frames(row, loc, shot, (spec, cut, ends), fps, defaults)
        found.append(Shot(shot.prompt or "", frames, cut))
        _warn_of_words(row, (*loc, "prompt"), shot.prompt or "", spec)
    total = sum(shot.frames for shot in found)
    if total > MAX_FRAMES and len(found) > 1:
        row.fault(("shots",), f"got {total:,} frames in all; accepted: at most {MAX_FRAMES:,}")
    return tuple(found)


def _written_shots(row: ReadRow) -> list[tuple[Loc, Row | ShotRow]]:
    """Where each shot stands and what is written there, and the faults that need no model."""
    says = row.says
    if not row.good("shots"):
        return []
    if says.shots is None:
        if says.prompt is None and row.good("prompt"):
            row.fault(("prompt",), f"is missing; accepted: {ACCEPTS['prompt']}, or shots")
        found: list[tuple[Loc, Row | ShotRow]] = [((), says)]
    else:
        for name in ("prompt", "seconds", "frames"):
            if getattr(says, name) is not None or not row.good(name):
                row.fault((name,), "does not go with shots; accepted: only that of each shot")
        found = [(("shots", i), shot) for i, shot in enumerate(says.shots)]
    for loc, shot in found:
        if loc and shot.prompt is None and row.good(*loc, "prompt"):
            row.fault((*loc, "prompt"), f"is missing; accepted: {ACCEPTS['prompt']}")
        if shot.seconds is not None and shot.frames is not None:
            row.fault((*loc, "frames"), "is given together with seconds; accepted: one of the two")
    return found


def _cut(row: ReadRow, index: int, loc: Loc, given: bool | None) -> bool:
    """Whether the shot starts fresh. The first continues a video where there is one; later ones go on."""
    if index:
        return bool(given)
    fresh = row.says.video is None and row.good("video")
    if given is not None and given != fresh:
        why = "there is nothing before it to continue" if fresh else "it continues the row's video"
        row.fault((*loc, "cut"), f"got {shown(given)}, but {why}; accepted: {shown(fresh)}")
    return fresh


def _frames(
    row: ReadRow,
    loc: Loc,
    shot: Row | ShotRow,
    grid: tuple[ModelSpec, bool, bool],
    fps: Rate | None,
    defaults: RowDefaults,
) -> int:
    """Video frames: `frames` as given, else the valid length nearest to what is asked for; 0 if faulty.

    `grid`: the model, whether the shot starts fresh, and whether nothing continues it.
    """
    if not (row.good(*loc, "frames") and row.good(*loc, "seconds")):
        return 0
    if shot.frames is not None:
        return _exact(row, (*loc, "frames"), shot.frames, *grid)
    seconds, wanted = shot.seconds, float(defaults.frames or grid[0].frames)
    if seconds is None and defaults.frames is None:
        seconds = defaults.seconds
    if seconds is not None:
        wanted = seconds * (fps or 0)
    frames = lengths.round_frames(wanted, *grid)
    if wanted > MAX_FRAMES:
        given = f"got {seconds:g}, that is {wanted:,.0f} frames at {fps} fps"
        row.fault((*loc, "seconds"), f"{given}; accepted: at most {MAX_FRAMES:,} frames")
        return 0
    if seconds is not None and fps and abs(frames - wanted) >= 1:
        row.warn((*loc, "seconds"), f"got {seconds:g}, which becomes {float(frames / fps):.4g}: {frames:,} frames")
    return frames


def _exact(row: ReadRow, loc: Loc, frames: int, spec: ModelSpec, fresh: bool, ends: bool) -> int:
    near = lengths.near_frames(frames, spec, fresh, MAX_FRAMES, ends)
    if near == [frames]:
        return frames
    kind = "a fresh start" if fresh else "a continuation"
    accepted = f"{_lengths(spec, fresh)} for {kind} with {spec.name}"
    row.fault(loc, f"got {shown(frames)}; nearest {_either(near)}; accepted: {accepted}")
    return 0


def _lengths(spec: ModelSpec, fresh: bool) -> str:
    first, step = lengths.shortest(spec, fresh), spec.chunk_frames
    return f"{first}, {first + step}, {first + 2 * step} and so on"


def _either(values: list[int]) -> str:
    return " or ".join(f"{value:,}" for value in values)


def _warn_of_words(row: ReadRow, loc: Loc, prompt: str, spec: ModelSpec) -> None:
    if not spec.vocabulary:
        return
    unknown = sorted(set(re.findall(r"[^\W_]+", prompt.lower())) - set(spec.vocabulary))
    if unknown:
        words = ", ".join(shown(word) for word in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        row.warn(loc, f"{spec.name} does not know {words}; it knows {', '.join(spec.vocabulary)}")


def check_pictures(row: ReadRow, spec: ModelSpec, shots: tuple[Shot, ...]) -> None:
    """Whether anything is left to be made beside frames that are given."""
    if row.says.image and shots and 0 < shots[0].frames == spec.video_frames(1):
        row.fault(("image",), "is all that the first shot shows; accepted: with a longer shot")
    if row.says.end_image and spec.chunk < 3:
        accepted = "models with chunks of at least 3 latent frames"
        row.fault(("end_image",), f"does not go with {spec.name}, whose chunks have {spec.chunk}; accepted: {accepted}")


def check_tail(row: ReadRow, video: MediaInfo, spec: ModelSpec, fps: Rate) -> None:
    """Whether the video holds the frames that the model needs in order to continue it."""
    have, need = video.frames_at(fps), lengths.shortest_history(spec)
    if have < need:
        given = f"{shown(row.says.video)} has {have} frame{'s' if have > 1 else ''} at {fps} fps"
        row.fault(("video",), f"{given}; accepted: at least {need} for {spec.name} to continue")


def check_without_model(row: ReadRow) -> None:
    """What can be said of shots, lengths and sizes while the model is unknown."""
    places: list[tuple[Loc, Any]] = [((*loc, "frames"), shot.frames) for loc, shot in _written_shots(row)]
    for loc, value in [*places, (("width",), row.says.width), (("height",), row.says.height)]:
        if value is not None and value < 1:
            row.fault(loc, f"got {shown(value)}; accepted: {ACCEPTS[str(loc[-1])]}")
