"""Manifest rows to render requests: every default filled in, every fault found before anything starts."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from flowcache import lengths
from flowcache.errors import InputError, MediaError, Problem, masked
from flowcache.records import MediaInfo, ModelSpec, RenderRequest, Shot
from flowcache.schema import (
    ACCEPTS,
    MAX_FRAMES,
    MAX_SIDE,
    Row,
    RowDefaults,
    ShotRow,
    faults,
    path_name,
    shown,
    usable_id,
)

Probe = Callable[[str, str], MediaInfo]  # (url as written, "image" or "video") -> what it is; raises MediaError
PROBES_AT_ONCE = 8


def validate(
    rows: Iterable[tuple[int, dict[str, Any]]],
    file: str,
    spec_of: Callable[[str], ModelSpec],
    defaults: RowDefaults,
    probe: Probe,
) -> tuple[list[RenderRequest], list[Problem], list[Problem]]:
    """The requests of all rows without fault, all faults, and warnings (words a tiny model does not know).

    `rows`: (row number, fields); `spec_of` raises InputError for an unknown model and is called once for
    each; `probe` is called once for each picture or video, from several threads.
    """
    manifest = _Manifest(masked(file), spec_of, defaults)
    read = [manifest.read(number, fields) for number, fields in rows]
    manifest.media = _probed(read, probe)
    requests = [manifest.request(row) for row in read]
    problems = sorted(manifest.problems, key=lambda problem: problem.row)
    return [request for request in requests if request], problems, manifest.warnings


class _Read:
    """One row past the check of types. `bad`: locations with a fault, of which nothing more can be said."""

    def __init__(self, number: int, row: Row, bad: set[tuple], video: str | None):
        self.number, self.row, self.bad, self.video = number, row, bad, video

    def good(self, *loc: int | str) -> bool:
        return not any(loc[: len(bad)] == bad for bad in self.bad)


class _Manifest:
    """What is known while the rows are checked one by one."""

    def __init__(self, file: str, spec_of: Callable[[str], ModelSpec], defaults: RowDefaults):
        self.file, self.spec_of, self.defaults = file, spec_of, defaults
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.media: dict[tuple[str, str], MediaInfo | MediaError] = {}
        self.specs: dict[str, ModelSpec | str] = {}
        self.taken: dict[str, int] = {}  # id in lower case -> row that has it

    def read(self, number: int, fields: dict[str, Any]) -> _Read:
        """Check types and ranges; the row comes back without its faulty fields."""
        read = _Read(number, Row(), set(), None)
        if given := usable_id(fields.get("id")):
            first = self._claim(given, number)
            if first == number:
                read.video = given
            else:
                self.fault(read, "id", f"{shown(given)} is the id of row {first} too; accepted: an id of its own")
        try:
            read.row = Row.model_validate(fields)
        except ValidationError as error:
            for loc, message in faults(error, Row, ACCEPTS):
                self.fault(read, path_name(loc), message)
                read.bad.add(_faulty(loc))
            read.row = Row.model_validate(_without(fields, read.bad))
        return read

    def _claim(self, name: str, number: int) -> int:
        """Take an id, which no other row may have, nor one that differs in case only: the row that has it."""
        return self.taken.setdefault(name.lower(), number)

    def fault(self, read: _Read, field: str, message: str) -> None:
        self.problems.append(Problem(self.file, field, message, read.number, read.video))

    def request(self, read: _Read) -> RenderRequest | None:
        """The finished request; None after any fault. Faults of independent fields are all found."""
        before = len(self.problems)
        row, spec = read.row, self._spec(read)
        media = self._media(read)
        values: dict[str, Any] = {"image": row.image, "video": row.video, "negative_prompt": "", "seed": None}
        if spec:
            values |= self._look(read, spec)
            values["policy"] = self._policy(read, spec)
            values["shots"] = self._shots(read, spec, values["fps"])
            if isinstance(media.get("video"), MediaInfo) and values["fps"]:
                self._check_tail(read, media["video"], spec, values["fps"])
        else:
            self._check_unmodelled(read)
        if len(self.problems) > before or read.bad or (row.id and not read.video):
            return None
        return self._finished(read, values, {kind: info.url for kind, info in media.items()})

    def _check_unmodelled(self, read: _Read) -> None:
        """What can be said of lengths and sizes without knowing the model."""
        places = [(loc, shot, ("frames",)) for loc, shot in self._shot_rows(read)]
        for loc, holder, names in [*places, ((), read.row, ("width", "height"))]:
            for name in names:
                value = getattr(holder, name)
                if value is not None and value < 1:
                    self.fault(read, path_name((*loc, name)), f"got {shown(value)}; accepted: {ACCEPTS[name]}")

    def _finished(self, read: _Read, values: dict[str, Any], urls: dict[str, str]) -> RenderRequest | None:
        row = read.row
        values["guidance"] = float(values["guidance"])
        name = row.id or content_id(values)
        first = self._claim(name, read.number)
        if first != read.number:
            accepted = "accepted: an id of its own, or another seed"
            self.fault(read, "id", f"is missing, and the row asks for the same video as row {first}; {accepted}")
            return None
        seed = values["seed"] if values["seed"] is not None else default_seed(name)
        labels, priority = row.labels or {}, row.priority or 0
        return RenderRequest(**{**values, **urls, "id": name, "seed": seed, "labels": labels, "priority": priority})

    def _spec(self, read: _Read) -> ModelSpec | None:
        if not read.good("model"):
            return None
        name = read.row.model or self.defaults.model
        if name not in self.specs:
            try:
                self.specs[name] = self.spec_of(name)
            except InputError as error:
                self.specs[name] = "; ".join(problem.message for problem in error.problems)
        found = self.specs[name]
        if isinstance(found, str):
            self.fault(read, "model", found)
            return None
        return found

    def _media(self, read: _Read) -> dict[str, MediaInfo]:
        """What the row's picture or video is, by kind; {} without one."""
        if read.row.image and read.row.video:
            self.fault(read, "video", "is given together with image; accepted: one of the two")
        found = {}
        for kind in ("image", "video"):
            url = getattr(read.row, kind)
            info = self.media.get((url, kind))
            if isinstance(info, MediaInfo):
                found[kind] = info
            elif info is not None:
                accepted = f"; accepted: {'a picture' if kind == 'image' else 'a video'} that can be opened and decoded"
                self.fault(read, kind, f"{shown(url)} {info}{'' if 'accepted:' in str(info) else accepted}")
        return found

    def _look(self, read: _Read, spec: ModelSpec) -> dict[str, Any]:
        """Fields whose default comes from the job, else the model; None where the row's own is faulty."""
        values: dict[str, Any] = {"model": read.row.model or self.defaults.model}
        for name in ("width", "height", "fps", "seed", "guidance", "steps", "negative_prompt"):
            own, job = getattr(read.row, name), getattr(self.defaults, name)
            chosen = own if own is not None else job if job is not None else getattr(spec, name, None)
            values[name] = chosen if read.good(name) else None
        if values["steps"] is not None and values["steps"] > spec.max_steps:
            accepted = f"a whole number from 1 to {spec.max_steps:,} with {spec.name}"
            self.fault(read, "steps", f"got {values['steps']:,}{self._origin(read, 'steps')}; accepted: {accepted}")
        self._check_size(read, values["width"], values["height"], spec)
        return values

    def _origin(self, read: _Read, name: str) -> str:
        return "" if getattr(read.row, name) is not None else " (default)"

    def _check_size(self, read: _Read, width: int | None, height: int | None, spec: ModelSpec) -> None:
        if spec.sizes:
            if None not in (width, height) and (width, height) not in spec.sizes:
                known = ", ".join(f"{w}x{h}" for w, h in lengths.near_sizes(width, height, spec))
                given = f"got {shown(width)}x{shown(height)}"
                self.fault(read, "width, height", f"{given}; accepted with {spec.name}, nearest first: {known}")
            return
        for name, pixels in (("width", width), ("height", height)):
            near = [] if pixels is None else lengths.near_sides(pixels, spec, MAX_SIDE)
            if near and near != [pixels]:
                accepted = f"multiples of {spec.size_step} up to {MAX_SIDE}"
                given = f"got {shown(pixels)}{self._origin(read, name)}"
                self.fault(read, name, f"{given}; nearest {_either(near)}; accepted: {accepted}")

    def _policy(self, read: _Read, spec: ModelSpec) -> dict[str, Any] | None:
        """{"name": "off"}, or {"name": "paper", "preset": ..., and what overrides it}."""
        policy = read.row.policy or self.defaults.policy
        given = policy.model_dump(exclude_none=True)
        if not read.good("policy"):
            return None
        if policy.name == "off":
            for extra in sorted(given.keys() - {"name"}):
                self.fault(read, f"policy.{extra}", "does not go with name 'off'; accepted: nothing but name")
            return given
        if not spec.reuse:
            self.fault(read, "policy", f"got 'paper', for which {spec.name} has no settings; accepted: 'off'")
            return None
        preset = policy.preset or ("slow" if "slow" in spec.reuse else next(iter(spec.reuse)))
        if preset not in spec.reuse:
            known = " or ".join(repr(name) for name in spec.reuse)
            self.fault(read, "policy.preset", f"got {shown(preset)}; accepted with {spec.name}: {known}")
        return given | {"preset": preset}

    def _shot_rows(self, read: _Read) -> list[tuple[tuple, Row | ShotRow]]:
        """(location, what is written there) of each shot, and the faults that need no model."""
        row = read.row
        if not read.good("shots"):
            return []
        if row.shots is None:
            if row.prompt is None and read.good("prompt"):
                self.fault(read, "prompt", f"is missing; accepted: {ACCEPTS['prompt']}, or shots")
            found: list[tuple[tuple, Row | ShotRow]] = [((), row)]
        else:
            for name in ("prompt", "seconds", "frames"):
                if getattr(row, name) is not None or not read.good(name):
                    self.fault(read, name, "does not go with shots; accepted: only that of each shot")
            found = [(("shots", i), shot) for i, shot in enumerate(row.shots)]
        for loc, shot in found:
            if loc and shot.prompt is None and read.good(*loc, "prompt"):
                self.fault(read, path_name((*loc, "prompt")), f"is missing; accepted: {ACCEPTS['prompt']}")
            if shot.seconds is not None and shot.frames is not None:
                message = "is given together with seconds; accepted: one of the two"
                self.fault(read, path_name((*loc, "frames")), message)
        return found

    def _shots(self, read: _Read, spec: ModelSpec, fps: int | None) -> tuple[Shot, ...]:
        shots = []
        for index, (loc, shot) in enumerate(self._shot_rows(read)):
            cut = self._cut(read, index, loc, getattr(shot, "cut", None))
            shots.append(Shot(shot.prompt or "", self._frames(read, loc, shot, fps, spec, cut), cut))
            self._warn_of_words(read, path_name((*loc, "prompt")), shot.prompt or "", spec)
        total = sum(shot.frames for shot in shots)
        if total > MAX_FRAMES and len(shots) > 1:
            self.fault(read, "shots", f"got {total:,} frames in all; accepted: at most {MAX_FRAMES:,}")
        return tuple(shots)

    def _cut(self, read: _Read, index: int, loc: tuple, given: bool | None) -> bool:
        """Whether the shot starts fresh. The first continues a video where there is one; later ones go on."""
        if index:
            return bool(given)
        fresh = read.row.video is None and read.good("video")
        if given is not None and given != fresh:
            why = "there is nothing before it to continue" if fresh else "it continues the row's video"
            self.fault(read, path_name((*loc, "cut")), f"got {shown(given)}, but {why}; accepted: {shown(fresh)}")
        return fresh

    def _frames(
        self, read: _Read, loc: tuple, shot: Row | ShotRow, fps: int | None, spec: ModelSpec, fresh: bool
    ) -> int:
        """Video frames of a shot: `frames` as given, else the valid length nearest to what is asked for; 0: faulty."""
        if not (read.good(*loc, "frames") and read.good(*loc, "seconds")):
            return 0
        if shot.frames is not None:
            return self._exact(read, (*loc, "frames"), shot.frames, spec, fresh)
        seconds, wanted = shot.seconds, float(self.defaults.frames or spec.frames)
        if seconds is None and self.defaults.frames is None:
            seconds = self.defaults.seconds
        if seconds is not None:
            wanted = seconds * (fps or 0)
        if wanted > MAX_FRAMES:
            given = f"got {seconds:g}, that is {wanted:,.0f} frames at {fps} fps"
            self.fault(read, path_name((*loc, "seconds")), f"{given}; accepted: at most {MAX_FRAMES:,} frames")
            return 0
        return lengths.round_frames(wanted, spec, fresh)

    def _exact(self, read: _Read, loc: tuple, frames: int, spec: ModelSpec, fresh: bool) -> int:
        near = lengths.near_frames(frames, spec, fresh, MAX_FRAMES)
        if near == [frames]:
            return frames
        first, step = lengths.shortest(spec, fresh), spec.chunk_frames
        kind = "a fresh start" if fresh else "a continuation"
        accepted = f"{first}, {first + step}, {first + 2 * step} and so on for {kind} with {spec.name}"
        self.fault(read, path_name(loc), f"got {shown(frames)}; nearest {_either(near)}; accepted: {accepted}")
        return 0

    def _check_tail(self, read: _Read, video: MediaInfo, spec: ModelSpec, fps: int) -> None:
        have, need = video.frames_at(fps), spec.overlap_frames
        if have < need:
            have = f"{have} frame{'s' if have > 1 else ''}"
            accepted = f"at least {need} for {spec.name} to continue"
            self.fault(read, "video", f"{shown(read.row.video)} has {have} at {fps} fps; accepted: {accepted}")

    def _warn_of_words(self, read: _Read, field: str, prompt: str, spec: ModelSpec) -> None:
        if not spec.vocabulary:
            return
        unknown = sorted(set(re.findall(r"\w+", prompt.lower())) - set(spec.vocabulary))
        if unknown:
            words = ", ".join(shown(word) for word in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
            message = f"{spec.name} does not know {words}; it knows {', '.join(spec.vocabulary)}"
            self.warnings.append(Problem(self.file, field, message, read.number, read.video))


def _probed(read: list[_Read], probe: Probe) -> dict[tuple[str, str], MediaInfo | MediaError]:
    """Every distinct picture and video, opened: (url as written, kind) -> what it is or why it is not."""

    def attempt(media: tuple[str, str]) -> MediaInfo | MediaError:
        try:
            return probe(*media)
        except MediaError as error:
            return error

    wanted = list(
        dict.fromkeys((url, kind) for one in read for kind in ("image", "video") if (url := getattr(one.row, kind)))
    )
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(attempt, wanted), strict=True))


def content_id(values: dict[str, Any]) -> str:
    """The id of a row without one: rows that would render the same get the same."""
    content = {**values, "shots": [[shot.prompt, shot.frames, shot.cut] for shot in values["shots"]]}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "v-" + hashlib.sha256(canonical.encode()).hexdigest()[:16]


def default_seed(video_id: str) -> int:
    """32 bits that depend on the id alone, so that a row keeps its noise when the manifest around it changes."""
    return int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:4], "big")


def _either(values: list[int]) -> str:
    return " or ".join(f"{value:,}" for value in values)


def _faulty(loc: tuple) -> tuple:
    """The field that a fault makes unusable: of a shot one field, of everything else the whole field."""
    return loc[:3] if loc[0] == "shots" else loc[:1]


def _without(fields: dict[str, Any], bad: set[tuple]) -> dict[str, Any]:
    """The row without its faulty fields; shots keep their places."""
    kept = {name: value for name, value in fields.items() if isinstance(name, str) and (name,) not in bad}
    if isinstance(kept.get("shots"), list):
        if any(loc[0] == "shots" and len(loc) == 2 for loc in bad):
            kept["shots"] = [shot if isinstance(shot, dict) else {} for shot in kept["shots"]]
        kept["shots"] = [
            {name: value for name, value in shot.items() if ("shots", i, name) not in bad}
            for i, shot in enumerate(kept["shots"])
        ]
    return kept
