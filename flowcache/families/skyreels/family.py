"""SkyReels-V2 as a `Family`. What needs torch is imported where it is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowcache.errors import Problem
from flowcache.families.base import Asked, Family, Kept, Traits
from flowcache.families.layouts import Layout, kv_heads
from flowcache.families.skyreels import flops, layout, look_alikes, published, requests
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.policies import POLICIES
from flowcache.records import SAMPLING, Dtype, ModelSpec, RenderRequest

if TYPE_CHECKING:
    import torch

    from flowcache.cache.policy import Policy
    from flowcache.families.skyreels.sampler import SamplerSettings
    from flowcache.families.skyreels.transformer import SkyReelsTransformer
    from flowcache.models.part import Part
    from flowcache.models.text import T5TextEncoder


class SkyReels(Family):
    name = "skyreels"
    traits = Traits(
        "pixels", "window", any_length=False, negative_prompt=True, fields=(*SAMPLING, "solver"), fit="crop",
        compiles=True,
    )  # fmt: skip
    policies = POLICIES
    counts = flops
    accepts = "a SkyReels-V2-DF checkpoint (official or diffusers layout)"

    def marks(self, path: Path) -> Mapping[str, Sequence[str]]:
        return layout.marks(path)

    def layout(self, path: Path) -> Layout:
        return layout.layout(path)

    def look_alike(self, layout: Layout) -> list[Problem]:
        return look_alikes.look_alike(layout)

    def doubts(self, layout: Layout) -> list[Problem]:
        return look_alikes.doubts(layout)

    def published(self, layout: Layout) -> dict[str, Any]:
        return published.settings(layout.root, layout.transformer)

    def heads(self, layout: Layout) -> int:
        return kv_heads(layout.config)

    def config(self, layout: Layout) -> SkyReelsConfig:
        from flowcache.families.skyreels.weights import read_config

        return read_config(layout.transformer)

    def finds_lag(self, values: Mapping[str, Any], spec: ModelSpec) -> bool:
        """By the right solver other steps than the model's own leave chunks as many noise levels behind one another."""
        return requests.rightly(values["solver"], values["policy"]) and values["steps"] != spec.steps

    def negative_prompts(self) -> Mapping[str, str]:
        return {"official": published.NEGATIVE_PROMPT}

    def check(self, asked: Asked, spec: ModelSpec) -> Iterable[tuple[str, str]]:
        return requests.check(asked, spec)

    def settings(self, request: RenderRequest, spec: ModelSpec) -> "SamplerSettings":
        from flowcache.families.skyreels.sampler import SamplerSettings

        return SamplerSettings.of(request, spec)

    def compared(self, settings: "SamplerSettings") -> "Mapping[str, tuple[SamplerSettings, Policy]]":
        from flowcache.families.policies import bare

        named = bare(POLICIES, "dense", "off", "paper", "flowcache")
        return {name: (settings, policy) for name, policy in named.items()}

    def preset_steps(self, spec: ModelSpec, layout: Layout) -> Mapping[str, int]:
        """The signal sees time only."""
        from flowcache.families.skyreels.preset_steps import computed_steps
        from flowcache.families.skyreels.weights import load_time_embedding

        return computed_steps(load_time_embedding(layout.transformer), spec)

    def part(self, layout: Layout) -> "Part[SkyReelsTransformer]":
        from flowcache.families.skyreels.weights import transformer_part

        return transformer_part(layout.transformer)

    def build(self, config: SkyReelsConfig) -> "SkyReelsTransformer":
        from flowcache.families.skyreels.transformer import SkyReelsTransformer

        return SkyReelsTransformer(config)

    def keep_float32(self, name: str) -> bool:
        from flowcache.families.skyreels.weights import keep_float32

        return keep_float32(name)

    def text_part(self, path: Path) -> "Part":
        from flowcache.models.text import text_part

        return text_part(path)

    def text_encoder(
        self, layout: Layout, config: SkyReelsConfig, device: str, dtype: "torch.dtype"
    ) -> "T5TextEncoder":
        from flowcache.models.text import load_text_encoder

        return load_text_encoder(*layout.texts(), config.text_len, device, dtype)

    def cleaned(self, prompt: str) -> str:
        from flowcache.models.prompts import clean_wan

        return clean_wan(prompt)

    def kept(self, spec: ModelSpec) -> Kept:
        """Both guidance branches keep K/V and residuals."""
        chunks = spec.window // spec.chunk
        return Kept(kv_branches=2, kv_chunks=chunks, chunks_in_flight=chunks)

    def codec_bytes(self, spec: ModelSpec, tile: int | None, dtype: Dtype) -> int:
        from flowcache.models.wan_vae import decoding_bytes

        return decoding_bytes(spec.width, spec.height, tile, 2 if dtype == "bf16" else 4)


FAMILY = SkyReels()
