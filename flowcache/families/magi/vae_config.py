"""The `ddconfig` of a published ViTVAE's config.json."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flowcache.models.tensors import fault

# Switches of the official class: what the published models have set, and what a missing one means.
SWITCHES = {
    "double_z": (True, True),
    "with_cls_token": (True, True),
    "ln_in_attn": (True, False),
    "conv_last_layer": (True, False),
    "qkv_bias": (True, False),
    "norm_code": (False, False),
    "use_rope": (False, False),
    "use_final_proj": (False, False),
}


@dataclass(frozen=True)
class ViTVAEConfig:
    """Sizes. `video_size`, `video_length`: pixels and frames for which positions were learned."""

    z_chans: int = 16
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    patch_size: int = 8
    patch_length: int = 4
    video_size: int = 256
    video_length: int = 16
    in_chans: int = 3

    @property
    def patch(self) -> tuple[int, int, int]:
        """(frames, rows, columns)."""
        return self.patch_length, self.patch_size, self.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches for which positions were learned: (frames, rows, columns)."""
        side = self.video_size // self.patch_size
        return self.video_length // self.patch_length, side, side


def vae_config(raw: dict, file: Path) -> ViTVAEConfig:
    """InputError names a size that is missing or no number, and a switch that is not set as in the published models."""
    given = raw.get("ddconfig")
    if not isinstance(given, dict):
        raise fault(file, "is missing; accepted: an object with the sizes of a ViTVAE", "ddconfig")
    for name, (accepted, otherwise) in SWITCHES.items():
        if given.get(name, otherwise) != accepted:
            raise fault(file, f"is {given.get(name, otherwise)!r}; accepted: {accepted!r}", f"ddconfig.{name}")
    sizes: dict[str, Any] = {field.name: given.get(field.name) for field in fields(ViTVAEConfig)}
    for name, value in sizes.items():
        whole = isinstance(value, int) or (name == "mlp_ratio" and isinstance(value, float))
        if not whole or isinstance(value, bool) or value <= 0:
            raise fault(file, f"is {value!r}; accepted: a number above 0", f"ddconfig.{name}")
    config = ViTVAEConfig(**sizes)
    frames, rows, columns = config.patch
    for name, divisor in (
        ("embed_dim", config.num_heads), ("embed_dim", frames * rows * columns),
        ("video_size", config.patch_size), ("video_length", config.patch_length),
    ):  # fmt: skip
        if sizes[name] % divisor:
            raise fault(file, f"is {sizes[name]}; accepted: multiples of {divisor}", f"ddconfig.{name}")
    return config
