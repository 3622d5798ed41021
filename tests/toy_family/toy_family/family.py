"""The toy as a `Family`: what the entry point names. No torch until it is asked for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flowcache.families.base import Asked, CodecKind, Family, Kept, Traits
from flowcache.families.layouts import Layout
from flowcache.records import ModelSpec, RenderRequest

from . import config as counts
from .config import ToyConfig, read_config
from .policies import POLICIES

if TYPE_CHECKING:
    import torch

    from flowcache.cache.policy import Policy
    from flowcache.models.part import Part

    from .model import ToyTransformer, ToyWords
    from .sampler import ToySettings


class Toy(Family):
    name = "toy"
    traits = Traits(continues_from="latents", prompt_per="window", any_length=True, negative_prompt=False)
    policies = POLICIES
    counts = counts

    def layout(self, path: Path) -> Layout:
        return Layout("toy", path, path / "toy.json", path / "weights", path / "codec")

    def heads(self, layout: Layout) -> int:
        return self.config(layout).kv_heads

    def config(self, layout: Layout) -> ToyConfig:
        return read_config(layout.config)

    def check(self, asked: Asked, spec: ModelSpec) -> Iterable[tuple[str, str]]:
        for name in ("image", "end_image"):
            if asked.values[name]:
                yield name, f"does not go with {spec.name}, which starts from videos alone; accepted: none"

    def settings(self, request: RenderRequest, spec: ModelSpec) -> "ToySettings":
        from .sampler import ToySettings

        return ToySettings(request.steps, spec.chunk, request.nominal_fps)

    def compared(self, settings: "ToySettings") -> "Mapping[str, tuple[ToySettings, Policy]]":
        from flowcache.families.policies import bare

        return {name: (settings, policy) for name, policy in bare(self.policies, "off").items()}

    def part(self, layout: Layout) -> "Part":
        from .model import transformer_part

        return transformer_part(layout.config, layout.transformer)

    def build(self, config: ToyConfig) -> "ToyTransformer":
        from .model import ToyTransformer

        return ToyTransformer(config)

    def text_encoder(self, layout: Layout, config: ToyConfig, device: str, dtype: "torch.dtype") -> "ToyWords":
        from .model import ToyWords

        return ToyWords(config)

    def codecs(self) -> Mapping[str, CodecKind]:
        from .model import codec_part

        return {"ToyCodec": CodecKind(codec_part, lambda codec, tile: codec)}

    def kept(self, spec: ModelSpec) -> Kept:
        return Kept(kv_branches=1, kv_chunks=spec.window // spec.chunk, chunks_in_flight=1)

    def codec_bytes(self, spec: ModelSpec, tile: int | None, dtype: str) -> int:
        return 4 * 3 * spec.chunk_frames * spec.width * spec.height


FAMILY = Toy()
