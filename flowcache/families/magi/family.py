"""MAGI-1 as a `Family`. What needs torch is imported where it is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowcache.errors import Problem, problems_of
from flowcache.families.base import Asked, CodecKind, Family, Kept, PreparedTexts, Traits
from flowcache.families.layouts import Layout, kv_heads
from flowcache.families.magi import flops, layout, published, requests
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.config_file import read_config
from flowcache.families.magi.layout import special_tokens
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.policies import POLICIES
from flowcache.families.magi.tokens import OFFICIAL
from flowcache.records import Dtype, ModelSpec, RenderRequest

if TYPE_CHECKING:
    import torch

    from flowcache.cache.policy import Policy
    from flowcache.families.magi.captions import Captions
    from flowcache.families.magi.sampler import MagiSettings
    from flowcache.families.magi.transformer import MagiTransformer
    from flowcache.models.part import Part
    from flowcache.models.text import T5TextEncoder


class Magi(Family):
    name = "magi"
    traits = Traits(
        continues_from="latents", prompt_per="chunk", any_length=True, negative_prompt=False, negatives=(OFFICIAL,),
        fields=("special_tokens", "prev_chunks_scale"), fit="stretch", video_start=32,
        compiles=True,
    )  # fmt: skip
    policies = POLICIES
    counts = flops
    accepts = "the config file of a MAGI-1 checkpoint"

    def marks(self, path: Path) -> Mapping[str, Sequence[str]]:
        return layout.marks(path)

    def layout(self, path: Path) -> Layout:
        return layout.layout(path)

    def published(self, layout: Layout) -> dict[str, Any]:
        return published.settings(layout.config)

    def pipeline(self, raw: Any) -> Pipeline:
        if not isinstance(raw, dict):
            raise TypeError("accepted: an object, which says how chunks in flight are sampled")
        return Pipeline(**raw)

    def heads(self, layout: Layout) -> int:
        return kv_heads(layout.config)

    def config(self, layout: Layout) -> MagiConfig:
        return read_config(layout.config)

    def damage(self, layout: Layout, config: MagiConfig | None) -> list[Problem]:
        from flowcache.families.magi.captions import read_special_tokens

        special = special_tokens(layout)
        if config is None or special is None or not special.exists():
            return []
        return problems_of(partial(read_special_tokens, special, config.text_dim))

    def defaults(self, spec: ModelSpec) -> Mapping[str, Any]:
        """How far chunks lie apart follows from the steps and the chunks in flight."""
        return {"ar_step": None}

    def check(self, asked: Asked, spec: ModelSpec) -> Iterable[tuple[str, str]]:
        return requests.check(asked, spec)

    def settings(self, request: RenderRequest, spec: ModelSpec) -> "MagiSettings":
        from flowcache.families.magi.sampler import MagiSettings

        return MagiSettings.of(request, spec)

    def compared(self, settings: "MagiSettings") -> "Mapping[str, tuple[MagiSettings, Policy]]":
        """ "dense" is `off` where every chunk sees all before it."""
        from flowcache.families.policies import bare

        named = bare(POLICIES, "off", "paper", "flowcache")
        everything = replace(settings, pipeline=replace(settings.pipeline, kv_ranges=()))
        dense = everything, replace(named["off"], name="dense")
        return {"dense": dense} | {name: (settings, policy) for name, policy in named.items()}

    def part(self, layout: Layout) -> "Part[MagiTransformer]":
        from flowcache.families.magi.weights import transformer_part

        return transformer_part(layout.config, layout.transformer)

    def build(self, config: MagiConfig) -> "MagiTransformer":
        from flowcache.families.magi.transformer import MagiTransformer

        return MagiTransformer(config)

    def keep_float32(self, name: str) -> bool:
        from flowcache.families.magi.weights import keep_float32

        return keep_float32(name)

    def text_part(self, path: Path) -> "Part":
        from flowcache.models.text import text_part

        return text_part(path)

    def text_encoder(self, layout: Layout, config: MagiConfig, device: str, dtype: "torch.dtype") -> "T5TextEncoder":
        """In float32 whatever `dtype`, as the official code runs T5."""
        import torch

        from flowcache.models.prompts import clean_magi
        from flowcache.models.text import load_text_encoder

        return load_text_encoder(*layout.texts(), config.text_len, device, torch.float32, clean_magi)

    def cleaned(self, prompt: str) -> str:
        from flowcache.models.prompts import clean_magi

        return clean_magi(prompt)

    def text_room(self, config: MagiConfig, request: RenderRequest) -> int:
        """Special tokens come first."""
        return config.text_len - len(OFFICIAL if request.special_tokens is None else request.special_tokens)

    def text(self, layout: Layout, config: MagiConfig, texts: PreparedTexts) -> "Captions":
        from flowcache.families.magi.captions import Captions, read_special_tokens

        special = special_tokens(layout)
        return Captions(texts.tokens, special and read_special_tokens(special, config.text_dim), config.text_len)

    def codecs(self) -> Mapping[str, CodecKind]:
        from flowcache.families.magi.vae import latent_grid, vae_part
        from flowcache.families.magi.vae_codec import MagiCodec

        return {"ViTVAE": CodecKind(vae_part, MagiCodec, half=True, grid=latent_grid)}

    def kept(self, spec: ModelSpec) -> Kept:
        """One of the passes fills the only K/V store."""
        seen = max(spec.pipeline.kv_ranges, default=spec.window // spec.chunk)
        return Kept(kv_branches=1, kv_chunks=seen, chunks_in_flight=spec.pipeline.window)

    def codec_bytes(self, spec: ModelSpec, tile: int | None, dtype: Dtype) -> int:
        from flowcache.families.magi.vae_codec import decoding_bytes

        return decoding_bytes(spec.width, spec.height, spec.chunk_frames, spec.fps, tile, 4 if dtype == "fp32" else 2)


FAMILY = Magi()
