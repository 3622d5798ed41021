"""A request becomes segments. Pure."""

from flowcache.families.known import family
from flowcache.records import ModelSpec, RenderRequest, Segment


def plan(request: RenderRequest, spec: ModelSpec) -> tuple[Segment, ...]:
    """The segments of one video, in order.

    Every shot begins a segment. A segment is as long as the model's window allows: a fresh one has
    window / chunk chunks, one that continues has (window - overlap) / chunk. Where the request wants all in one
    segment, only shots that cut begin another. ValueError for frames that the latent grid can't make (manifests are
    checked before they come here).
    """
    segments: list[Segment] = []
    chunk = frame = 0
    spec = spec.asked(vars(request))
    for number, length, continues in _runs(request):
        for part, (count, frames) in enumerate(_cut(length, continues, spec, request.segment == "all")):
            linked = part > 0 or (number > 0 and continues)
            after = len(segments) - 1 if linked else None
            segments.append(Segment(request.id, len(segments), number, chunk, count, frame, frames, after))
            chunk, frame = chunk + count, frame + frames
    return tuple(segments)


def continues(request: RenderRequest, segment: Segment) -> bool:
    """Whether it begins with what is not shown again: the end of another segment, or a part of the row's video."""
    return segment.after is not None or (segment.shot == 0 and request.video is not None)


def _runs(request: RenderRequest) -> list[tuple[int, int, bool]]:
    """(first shot, frames, whether it continues something) of what begins a segment: each shot, or each cut."""
    runs: list[tuple[int, int, bool]] = []
    for number, shot in enumerate(request.shots):
        continues = not shot.cut if number else request.video is not None
        if number and continues and request.segment == "all":
            first, frames, whole = runs.pop()
            runs.append((first, frames + shot.frames, whole))
        else:
            runs.append((number, shot.frames, continues))
    return runs


def _cut(frames: int, continues: bool, spec: ModelSpec, whole: bool) -> list[tuple[int, int]]:
    """(chunks, frames) of each segment of a run; `whole`: of which there is one.

    The last chunk may be longer than what is asked for, where the model's family can end inside it.
    """
    lead = 0 if continues else spec.chunk_frames - spec.first_chunk_frames  # what the first chunk lacks
    chunks, rest = divmod(frames + lead, spec.chunk_frames)
    if family(spec.family).traits.any_length:
        chunks, rest = chunks + bool(rest), 0
    if rest or chunks < 1:
        raise ValueError(f"{frames} frames are no whole number of chunks")
    cuts = []
    while chunks:
        room = (spec.window if not continues else spec.window - spec.overlap) // spec.chunk
        count = chunks if whole else min(chunks, room)
        cuts.append((count, min(count * spec.chunk_frames - (0 if continues else lead), frames)))
        chunks, frames = chunks - count, frames - cuts[-1][1]
        continues = True
    return cuts
