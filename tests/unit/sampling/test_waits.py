"""On a (pretended) GPU the host runs ahead: a row waits for nothing but what a decision must see, and a chunk's end."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from benchmarks.pretend import filled, pretend_gpu
from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import CountedReuse, JointReuse, Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement, RepeatVelocity
from flowcache.families.known import family_of
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.latents import Given
from flowcache.sampling.plan import finished_in
from flowcache.sampling.records import Texts
from flowcache.sampling.window import Window
from tests.unit.cache.int8_buffer import Int8Buffer

CHUNK, CHUNKS, STEPS, WIDTH = 2, 3, 4, 16
SKYREELS = SkyReelsConfig(64, 96, 4, 1, text_dim=WIDTH, inject_sample_info=True)
MAGI = MagiConfig(64, 128, 8, 4, 16, 1, text_dim=WIDTH, condition_dim=16)
SETTINGS = {
    SKYREELS: SamplerSettings(STEPS, shift=8.0, guidance=6.0, ar_step=1, chunk=CHUNK, fps=24),
    MAGI: MagiSettings(STEPS, lag=1, chunk=CHUNK, fps=24, guidance=7.5, pipeline=Pipeline()),
}
OFTEN = Reuse(threshold=2.0, warmup_steps=1, coefficients=(1.0, 0.0))  # what is read is 1: every other step is reused
LATE = Policy(
    "paper", OFTEN, "stale", clean=1, compression=Compression(), cache=CacheOf(RepeatIncrement), cut="after",
    near_clean_guidance=False,
)  # fmt: skip
POLICIES = {
    "skyreels off": (SKYREELS, Policy("off")),
    "skyreels dense": (SKYREELS, Policy("dense", attention="full")),
    "skyreels flowcache": (SKYREELS, Policy("flowcache", OFTEN, "refresh")),
    "skyreels paper": (SKYREELS, Policy("paper", OFTEN, "stale", clean=1)),
    "skyreels compressed": (SKYREELS, Policy("flowcache", OFTEN, "refresh", clean=1, compression=Compression())),
    "skyreels int8": (SKYREELS, Policy("flowcache", None, "refresh", clean=1, kv_buffer=Int8Buffer)),
    "skyreels counted": (SKYREELS, Policy("teacache", CountedReuse(**vars(OFTEN)))),
    "magi paper": (MAGI, LATE),
    "skyreels teacache": (SKYREELS, Policy("teacache", JointReuse(**vars(OFTEN)), "refresh")),
    "magi off": (MAGI, Policy("off", kv_update="refresh")),
    "magi flowcache": (MAGI, Policy("flowcache", OFTEN, "refresh", cache=CacheOf(RepeatVelocity))),
    "magi distilled": (MAGI, Policy("flowcache", OFTEN, "refresh", cache=CacheOf(RepeatVelocity))),
}
TIMED = {name for name, (config, policy) in POLICIES.items() if config is SKYREELS and policy.reuse}
END, DECISION = ("value read", "sampling/latents.py replace"), ("value read", "cache/reuse.py relative_change")


def rows(name: str, given: int) -> list[tuple[set, int, int]]:
    """Of each row what the host waits for, without line numbers; how many chunks end in it, and how many decide."""
    config, policy = POLICIES[name]
    settings, owner, found = SETTINGS[config], family_of(config), []
    if name == "magi distilled":
        settings = replace(settings, pipeline=Pipeline(passes=1, distilled=True))
    with torch.device("meta"):
        module = owner.build(config)
    noise, text = torch.zeros(16, CHUNK * CHUNKS, 8, 8), torch.zeros(1, 5, WIDTH)
    prefix = Given(torch.zeros(16, given, 8, 8), condition_noise_of=lambda row: torch.zeros(16, given, 8, 8))
    with pretend_gpu() as tally, torch.inference_mode():
        model = filled(module, torch.bfloat16, owner.keep_float32)
        window = Window(model, noise, Texts(text, text), settings, policy, prefix if given else Given())
        assert not tally.waits
        for number, row in enumerate(window.plan.rows):
            window.run(number)
            waits = Counter({(what, " ".join((where.split(":")[0], where.split()[-1]))): count
                             for (what, where), count in tally.waits.items()})  # fmt: skip
            assert not tally.mixed
            found.append((waits, len(finished_in(window.plan, row)), len(row.steps)))
            tally.clear()
    return found


@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_rows_wait_for_ends_and_decisions_alone(name, given):
    first, *others = rows(name, given)
    for waits, ended, decided in others:
        assert waits.pop(END, 0) == ended
        if name.startswith("magi"):
            assert waits.pop(DECISION, 0) <= decided
        assert not waits
    (waits, _, _) = first
    once = ("copied to the host", "sampling/time_signals.py __init__")
    assert waits == ({once: 1} if name in TIMED else {})


def test_decisions_of_tokens_are_looked_at():
    assert sum(waits[DECISION] for waits, _, _ in rows("magi flowcache", 0)) > 2
