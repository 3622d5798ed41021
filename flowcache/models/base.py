"""What the sampler needs from a video model, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from flowcache.records import ModelSpec, RenderRequest

# attend(layer, q, k, v) -> out; q and out are [batch, tokens, heads, head_dim], k and v [batch, tokens, kv_heads,
# head_dim]; q and k are past RoPE, and query head i uses K/V head i // (heads / kv_heads). Whoever calls the model
# decides what else the queries see: a mask, a K/V cache, other ranks.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

# share(jobs, shapes) -> the jobs' results, fp32 and of these shapes, on the rank that shows them; None on those that
# only help. Each rank does some of the jobs; work is even where a job takes as long as its result is large. Every rank
# must call it alike and in the same order. While shapes change by one common factor, a job stays with its rank, and
# may remember something from call to call.
Job = Callable[[], Tensor]
Share = Callable[[Sequence[Job], Sequence[tuple[int, ...]]], list[Tensor] | None]

# select(queries, keys, budget) -> indices [budget, kv_heads] of the clean tokens to keep; where keys lie in several
# places, a fourth argument says what each must know of the others (`cache.kv_compress.Local`)
Select = Callable[..., Tensor]


@dataclass(frozen=True)
class Conditioning:
    """Timestep embeddings of some latent frames.

    `head` and `blocks`: what the family's head and blocks take, [batch, frames, ...]; frames is 1 where all share one
    timestep. `frame_of_token`: [tokens], of a run of tokens that does not hold as many of each frame; None: it does.
    """

    head: Tensor
    blocks: Tensor
    frame_of_token: Tensor | None = None

    @staticmethod
    def join(rows: "Sequence[Conditioning]") -> "Conditioning":
        """Those of chunks of one size as the rows of a batch."""
        if len(rows) == 1:
            return rows[0]
        frames = max(row.head.shape[1] for row in rows)
        head, blocks = (
            torch.cat([x if x.shape[1] == frames else x.expand(-1, frames, *x.shape[2:]) for x in part])
            for part in zip(*((row.head, row.blocks) for row in rows), strict=True)
        )
        return Conditioning(head, blocks)


@dataclass(frozen=True)
class Grid:
    """Where a run of tokens lies: tokens are ordered (frame, row, column) in patches."""

    frames: int
    rows: int
    columns: int
    first_frame: int = 0  # absolute latent frame of the first token, within the window; 0 for a chunk on its own

    @property
    def tokens(self) -> int:
        return self.frames * self.rows * self.columns


class VideoModel(Protocol):
    """A transformer that denoises some latent frames, cut where the sampler needs to step in.

    project(transform(embed(latents))) is the velocity. `transform` may be given any run of the tokens,
    so that ranks can share them (with `rope` and `conditioning` cut alike).
    """

    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...

    @property
    def timed_signal(self) -> bool:
        """Whether `signal` follows from the timesteps alone."""
        ...

    @property
    def null_caption(self) -> Tensor | None:
        """Embeddings [1, L, Dt] that stand for no caption; None: the family has learned none."""
        ...

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid: ...

    def embed(self, latents: Tensor) -> Tensor:
        """[B, C, F, H, W] -> tokens [B, S, D]."""
        ...

    def condition(self, timesteps: Tensor, grid: Grid, fps: int, distill: float | None = None) -> Conditioning:
        """timesteps [B, F] in 0..1000, in the family's own direction (SkyReels: 0 is clean; MAGI: 1000 is), on the CPU.

        distill: the further value that distilled models embed (MAGI: of the steps' number or length).
        """
        ...

    def text(self, embeddings: Tensor | None) -> Any:
        """[B, L, Dt] -> what `transform` takes as a text; computed once for each prompt.

        None: the caption is dropped, for families that have learned what then takes its place.
        """
        ...

    def rope(self, grid: Grid) -> Any:
        """What `transform` takes as the place of tokens."""
        ...

    def transform(
        self, tokens: Tensor, conditioning: Conditioning, texts: Sequence[Any], ropes: Sequence[Any], attend: Attend
    ) -> Tensor:
        """Tokens [B, S, D] after all layers. texts, ropes: of `text` and `rope`, for each row, or one for all."""
        ...

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        """[B, S, D] -> velocity [B, C, F, H, W]."""
        ...

    def signal(self, conditioning: Conditioning, tokens: Tensor | None, grid: Grid) -> Tensor:
        """The values whose change says how much the output will change (FlowCache's e0).

        tokens: of `embed`, lying at `grid`; None will do where `timed_signal`.
        """
        ...


@runtime_checkable
class DropsCaptions(Protocol):
    """A `VideoModel` that can see something else in place of a caption that was dropped."""

    def dropped(self, embeddings: Tensor) -> Any:
        """As `VideoModel.text`, of what is seen; the model is told that the caption was dropped."""
        ...


# An nn.Module that is a `VideoModel` too, which Python has no type for. It has `config`, its shape, and `blocks`, which
# hold nearly all weights: an nn.ModuleList that `transform` calls in order, and `text` by their `keys_values`.
VideoModule = Any


class KVSharding(Protocol):
    """How ranks keep the K/V of chunks of `tokens` tokens together, and see to it that they decide alike.

    Every rank must call the same methods in the same order.
    """

    def share(self, tokens: int) -> int:
        """How many tokens of every chunk are kept here."""
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor, tokens: int) -> Tensor:
        """Queries of this rank's share of a chunk over the keys of all ranks; [B, tokens, heads, head_dim]."""
        ...

    def keep(self, select: Select, q: Tensor, k: Tensor, v: Tensor, kept: int, tokens: int) -> list[Tensor]:
        """This rank's new share of keys and values, `kept` tokens, out of k and v [any, kv_heads, head_dim]."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of float64 values over all ranks, the same bits on each."""
        ...

    def agree(self, chunk: int, decisions: Sequence[str]) -> None:
        """FlowcacheError where the ranks took different decisions on a chunk."""
        ...


def alone(jobs: Sequence[Job], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """The `Share` of a single rank."""
    return [job() for job in jobs]


class Codec(Protocol):
    """Video in and out of latents. Pixels are [3, T, H, W] in -1..1, latents [C, F, h, w] normalised.

    Of a causal codec, F latent frames stand for 1 + (F - 1) * time_stride frames, else for F * time_stride:
    `ModelSpec.video_frames`.
    """

    def encode(self, video: Tensor) -> Tensor:
        """A video of such a length, or a single picture (T = 1), which gives one latent frame."""
        ...

    def stream(self, share: Share = alone) -> Callable[[Tensor], Tensor | None]:
        """A fresh decoder: called with consecutive latents [C, f, h, w], it returns their pixels [3, t, H, W].

        The same pixels however they are shared; None where `share` gives None.
        """
        ...


@runtime_checkable
class PacedCodec(Codec, Protocol):
    """A `Codec` that works otherwise at other frame rates."""

    def at(self, fps: int) -> Codec:
        """For a video of so many frames a second."""
        ...


class WordEncoder(Protocol):
    def words(self, prompt: str) -> Tensor:
        """[1, tokens, dim] in the encoder's precision, for the prompt's tokens alone."""
        ...


class TextEncoder(Protocol):
    def encode(self, prompt: str) -> Tensor:
        """[1, text_len, text_dim], zero after the prompt's end (as the official code pads)."""
        ...


@runtime_checkable
class CaptionEncoder(Protocol):
    """What a `TextEncoder` is too where a prompt is a chunk's own."""

    def caption(self, prompt: str, remaining: int) -> Tensor | None:
        """What a chunk sees, [1, L, text_dim], with `remaining` chunks after it; None: no caption."""
        ...


@runtime_checkable
class RequestCaptions(CaptionEncoder, Protocol):
    """A `CaptionEncoder` of which rows may want other captions."""

    def of(self, request: RenderRequest) -> "RequestCaptions":
        """As this request wants them."""
        ...

    def negative(self, null: Tensor) -> Tensor | None:
        """What is seen in place of the model's null caption [1, L, text_dim]; None: that one."""
        ...


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory: everything that one rank needs."""

    spec: ModelSpec
    transformer: VideoModel
    codec: Codec
    text: TextEncoder
    kv_sharding: KVSharding | None = None  # None: K/V are kept here alone
    share: Share = alone  # of decoding

    def codec_at(self, fps: int) -> Codec:
        """The codec for a video of so many frames a second."""
        return self.codec.at(fps) if isinstance(self.codec, PacedCodec) else self.codec
