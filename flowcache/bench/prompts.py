"""Prompts, anew by each seed, and the noise that goes with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from flowcache.bench.shapes import SIZE, Scene, caption, sample_scene, world_of
from flowcache.errors import InputError, Problem
from flowcache.records import ModelSpec

SEEDS = 1000  # of noise for each seed of prompts
LIMIT = 100_000_000  # bytes of a file of prompts
MOST = SEEDS - 1  # prompts: the last seed is for measuring `magcache`'s ratios

SUBJECTS = (
    "an old fisherman", "a red fox", "a ballet dancer", "a steam locomotive", "a flock of starlings",
    "a street musician", "a paper boat", "a humpback whale", "a child with a kite", "a vintage motorcycle",
    "a glass blower", "a snow leopard",
)  # fmt: skip
ACTIONS = ("turns slowly", "moves from left to right", "comes closer", "stands still while the camera circles", "rises")
PLACES = (
    "on a wet city street at night", "in a pine forest", "above a calm sea", "in a sunlit workshop",
    "on a mountain ridge", "between fields of lavender", "under falling snow", "in front of a brick wall",
)  # fmt: skip
LIGHTS = ("in warm evening light", "in fog", "in hard noon light", "by candlelight", "at blue hour")


@dataclass(frozen=True)
class Drawn:
    """scene: what it describes, where that is known, so that a video can be judged by it. seed: of the noise."""

    text: str
    seed: int
    scene: Scene | None = None


def draw(spec: ModelSpec, n: int, seed: int) -> list[Drawn]:
    """The first ones are the same for every n. InputError where nobody knows what the model's words can say."""
    rng, first = Random(seed), seed * SEEDS
    if not spec.vocabulary:
        return [Drawn(_sentence(rng), first + number) for number in range(n)]
    world = world_of(spec.vocabulary)
    if not (world.kinds and world.motions and (spec.width, spec.height) == (SIZE, SIZE)):
        why = f"{spec.name} knows its own words alone; accepted: --prompts FILE with a prompt a line"
        raise InputError([Problem("model", "", why)])
    scenes = [sample_scene(rng, world=world) for _ in range(n)]
    return [Drawn(caption(scene), first + number, scene) for number, scene in enumerate(scenes)]


def read(file: Path, n: int | None, seed: int) -> list[Drawn]:
    """The first n lines that are not blank, or all of them. InputError where there are fewer, or no end."""
    try:
        with file.open("rb") as stream:
            text = stream.read(LIMIT + 1)
        if len(text) > LIMIT:
            raise InputError([Problem(str(file), "", f"is larger than {LIMIT:,} bytes; accepted: a prompt a line")])
        lines = [line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([Problem(str(file), "", f"can't be read: {error}")]) from None
    if n and len(lines) < n:
        raise InputError([Problem(str(file), "", f"holds {len(lines)} prompts; accepted: at least {n} (--n)")])
    return [Drawn(line, seed * SEEDS + number) for number, line in enumerate(lines[:n])]


def for_ratios(prompts: Sequence[Drawn], seed: int) -> Drawn:
    """What `magcache` is measured with: a prompt with noise that nothing else has."""
    return Drawn(prompts[0].text, seed * SEEDS + MOST)


def _sentence(rng: Random) -> str:
    return " ".join(rng.choice(words) for words in (SUBJECTS, ACTIONS, PLACES, LIGHTS))
