"""Which lengths and sizes a model can render, and the nearest ones to what somebody asked for."""

from flowcache.families.known import family
from flowcache.records import ModelSpec


def shortest(spec: ModelSpec, fresh: bool) -> int:
    """Video frames of the first chunk: shorter by what a causal codec's first latent frame lacks, if fresh."""
    return spec.first_chunk_frames if fresh else spec.chunk_frames


def shortest_history(spec: ModelSpec) -> int:
    """Video frames that a video must have at least to be continued."""
    any_history = family(spec.family).traits.continues_from == "latents"
    return spec.chunk_frames if any_history else spec.overlap_frames


def near_frames(frames: int, spec: ModelSpec, fresh: bool, most: int, ends: bool = False) -> list[int]:
    """[frames] where that is a whole number of chunks, else the lengths up to `most` just below and above.

    ends: nothing continues it, so that it may end inside a chunk where the model's family can.
    """
    if ends and family(spec.family).traits.any_length:
        return [min(max(frames, 1), most)]
    first, step = shortest(spec, fresh), spec.chunk_frames
    below = first + max(min(frames, most) - first, 0) // step * step
    return [below] if below >= frames or below + step > most else [below, below + step]


def round_frames(frames: float, spec: ModelSpec, fresh: bool, ends: bool = False) -> int:
    """The valid length nearest to `frames`; of two equally near ones the longer."""
    if ends and family(spec.family).traits.any_length:
        return max(int(frames + 0.5), 1)
    first = shortest(spec, fresh)
    chunks = int((frames - first) / spec.chunk_frames + 0.5)  # negative ones round towards 0
    return first + max(chunks, 0) * spec.chunk_frames


def near_sizes(width: int, height: int, spec: ModelSpec, at_most: int = 6) -> list[tuple[int, int]]:
    """The (width, height) that a model with fixed sizes knows, nearest first."""
    return sorted(spec.sizes, key=lambda size: (abs(size[0] - width) + abs(size[1] - height), size))[:at_most]


def near_sides(pixels: int, spec: ModelSpec, most: int) -> list[int]:
    """[pixels] where a model of any size can render that many, else the nearest multiples of its step."""
    step = spec.size_step
    below = max(min(pixels, most) // step, 1) * step
    return [below] if below >= pixels or below + step > most else [below, below + step]
