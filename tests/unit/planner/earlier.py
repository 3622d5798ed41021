"""An earlier run of known speed, of a tiny model that has no weights."""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowcache.families.settings import resolve_policy
from flowcache.inputs.segments import plan
from flowcache.planner.hardware import Link
from flowcache.planner.price import cost_model, window
from flowcache.planner.rank_work import RankWork, rank_work
from flowcache.records import ChunkRecord, ModelSpec, RenderRequest, Segment, Shot
from flowcache.sampling.dry_run import at_least, at_most, dry_run
from flowcache.storage.commits import commit_segment
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run, new_run

CONFIG = {
    "dim": 48, "ffn_dim": 96, "num_heads": 4, "num_layers": 2, "in_dim": 16, "out_dim": 16, "text_dim": 16,
    "text_len": 8,
}  # fmt: skip
PRESETS = {"slow": {"threshold": 0.1, "ret_steps": 2, "coefficients": [1.0]}}
PAPER = {"name": "paper", "preset": "slow"}


def specs_in(folder: Path) -> dict[str, ModelSpec]:
    """Of one tiny model, "m", whose config lies in the folder."""
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    spec = ModelSpec("m", "skyreels", str(folder), "d", chunk=5, window=25, overlap=5, channels=16, reuse=PRESETS)
    return {"m": spec}


def request(name: str = "v", frames: int = 177, **fields: Any) -> RenderRequest:
    values = dict(width=96, height=64, fps=24, seed=1, guidance=6.0, steps=10, policy=PAPER) | fields
    return RenderRequest(name, (Shot("a", frames),), model="m", **values)


def work(
    wanted: RenderRequest, segment: Segment, specs: Mapping[str, ModelSpec], share: float, ranks: int
) -> tuple[RankWork, int]:
    """Of a segment on each rank where `share` of what reuse may save was saved, and how many forwards may be."""
    policy, shape = resolve_policy(wanted.policy, specs["m"]), window(wanted, segment, specs["m"])
    config = cost_model(specs).configs["m"]
    most, least = (
        dry_run(shape.settings, shape.shape, config.patch, bound(policy), shape.given) for bound in (at_most, at_least)
    )
    done = rank_work(config, most, ranks).toward(rank_work(config, least, ranks), share)
    return done, most.forwards - least.forwards


SPEED, SLOWNESS, LOAD = 1e-9, 1e-7, 7.0  # seconds a FLOP, seconds a pixel, seconds
LINK = Link(1e6, 1e-4)  # so slow that it counts


def earlier_run(
    specs: Mapping[str, ModelSpec], requests: Sequence[RenderRequest], share: float = 0.5, ranks: int = 2
) -> Store:
    """Rendered at exactly that speed on gangs of `ranks`."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    segments = [segment for wanted in requests for segment in plan(wanted, specs["m"])]
    run = begin_run(store, new_run(requests, {"m": "d"}, segments, "0"))
    by_id = {wanted.id: wanted for wanted in requests}
    for number, segment in enumerate(segments):
        wanted = by_id[segment.video_id]
        done, reusable = work(wanted, segment, specs, share, ranks)
        denoise, pixels = done.seconds(SPEED, LINK), segment.frames * wanted.width * wanted.height
        chunk = ChunkRecord(
            segment.first_chunk, "k", "s", 1, segment.frames, 0, 1, int(reusable * share), denoise, 0, 0, 0
        )
        load = LOAD if number == 0 else 0.0
        marker = SegmentMarker(
            segment.video_id, segment.index, "a", run.run_id, run.spec_hash, 1, None, "i", "s", None, None, 0, (chunk,),
            segment.frames, 0, 24, wanted.policy, "host", "gang", ranks, 100.0,
            100.0 + load + denoise + pixels * SLOWNESS, {"load": load},
        )  # fmt: skip
        commit_segment(store, marker)
    return store


def expected(specs: Mapping[str, ModelSpec], wanted: RenderRequest, share: float, gang: int) -> float:
    """Seconds at that speed on a gang of so many ranks."""
    pixels = wanted.frames * wanted.width * wanted.height
    done = (work(wanted, segment, specs, share, gang)[0] for segment in plan(wanted, specs["m"]))
    return sum(one.seconds(SPEED, LINK) for one in done) + pixels * SLOWNESS
