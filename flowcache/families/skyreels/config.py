"""Shape of a SkyReels-V2 transformer."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SkyReelsConfig:
    """Published sizes: 1.3B is dim 1536, ffn 8960, 12 heads, 30 layers; 14B is 5120, 13824, 40, 40."""

    family: ClassVar[str] = "skyreels"
    dim: int
    ffn_dim: int
    heads: int
    layers: int
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    text_len: int = 512
    freq_dim: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    inject_sample_info: bool = False  # an embedding of the frame rate: index 0 for 16 fps, 1 otherwise
    positions: tuple[int, int] | None = None  # learned (rows, columns) in patches; no published model has them

    @property
    def kv_heads(self) -> int:
        return self.heads

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads
