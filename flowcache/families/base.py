"""What a family of models is to the rest: all that differs between families is asked here. No torch until it is asked.

Each has a folder of its own; docs/families.md says how another one is added, in a package of its own too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from flowcache.errors import Problem
from flowcache.families.layouts import Layout
from flowcache.families.policy_settings import PolicyDeclaration
from flowcache.records import Dtype, ModelSpec, RenderRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from flowcache.cache.policy import Policy
    from flowcache.models.base import Codec, TextEncoder, VideoModule, WordEncoder
    from flowcache.models.part import Part
    from flowcache.sampling.plan import Settings


@dataclass(frozen=True)
class Traits:
    """What rows, segments and the renderer need to know.

    continues_from: a later segment begins with the last "pixels", encoded anew, always as many; or with the clean
    "latents" of the chunks before it, of which there may be fewer.
    prompt_per: "window": one text; "chunk": each chunk's own, which `caption(prompt, remaining)` of the text makes.
    any_length: a video may end inside a chunk, the rest of which is not shown.
    negative_prompt: a second guidance branch sees such a text, where guidance is above 1. negatives: names of those
    that a model without such a text brings along. fields: of a row, that only some families have (`records.OWN`).
    fit: how pictures and videos are brought to size where a row says nothing. video_start: frames that are taken of a
    video's start; None: as many as of its end.
    compiles: the transformer's blocks are `models.blocks.Blocks`, which `compile_blocks` takes.
    """

    continues_from: Literal["pixels", "latents"] = "pixels"
    prompt_per: Literal["window", "chunk"] = "window"
    any_length: bool = False
    negative_prompt: bool = True
    negatives: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    fit: Literal["crop", "pad", "stretch"] = "crop"
    video_start: int | None = None
    compiles: bool = False


@dataclass(frozen=True)
class Asked:
    """What a row asks of its model. values: by field, defaults filled in; None where nothing is said, or where what is
    said is faulty, which is known already. own: the fields that the row itself says.
    """

    values: Mapping[str, Any]
    own: frozenset[str]

    def origin(self, name: str) -> str:
        """What a message adds to a value that the row does not say itself."""
        return "" if name in self.own else " (default)"


class Config(Protocol):
    """The shape of a family's transformer. text_len: most tokens of a text that it sees."""

    family: ClassVar[str]

    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def patch(self) -> tuple[int, int, int]: ...
    @property
    def text_dim(self) -> int: ...
    @property
    def text_len(self) -> int: ...


class Counts(Protocol):
    """FLOPs (2 for a multiply-add) and bytes of a transformer by its shape: a module will do."""

    def block_flops(self, config: Any, tokens: int, seen: int) -> int:
        """All blocks for `tokens` tokens that attend to `seen`."""
        ...

    def text_flops(self, config: Any) -> int:
        """Of one text, for all blocks."""
        ...

    def embed_flops(self, config: Any, tokens: int) -> int: ...

    def head_flops(self, config: Any, tokens: int) -> int: ...

    def kv_bytes(self, config: Any, tokens: int, element: int) -> int:
        """Keys and values of `tokens` tokens in every layer; element: bytes of a value."""
        ...

    def working_bytes(self, config: Any, tokens: int) -> int:
        """What a block holds at its most, in bfloat16."""
        ...

    def reuse_bytes(
        self, config: Any, tokens: int, ranks: int, kv_branches: int, chunks_in_flight: int, element: int
    ) -> int:
        """What reuse keeps on a rank, for chunks of so many tokens, which the ranks share."""
        ...


@dataclass(frozen=True)
class Kept:
    """Of a window. kv_chunks: whose K/V each branch keeps; chunks_in_flight: at once, at the most."""

    kv_branches: int
    kv_chunks: int
    chunks_in_flight: int


class PreparedTexts(Protocol):
    """A `TextEncoder` that keeps what it has encoded."""

    def encode(self, prompt: str) -> "Tensor": ...

    def tokens(self, prompt: str) -> "Tensor":
        """What `WordEncoder.words` gave, on the CPU."""
        ...


@dataclass(frozen=True)
class CodecKind:
    """part: what a `vae` folder with this `_class_name` holds, given its config.json; codec: the module, ready to be
    used, in tiles of so many pixels a side or whole. half: its official program runs it in bfloat16. grid: of a module
    its latents' channels, and the video frames and pixels that one stands for, to be compared with the transformer's.
    """

    part: "Callable[[Path, dict[str, Any]], Part[Any]]"
    codec: "Callable[[Any, int | None], Codec]"
    half: bool = False
    grid: "Callable[[Any], tuple[int, int, int]] | None" = None


class Family(ABC):
    """Abstract is what each family has to give, beside name, policies and counts; what it does not say is as here.

    policies: those that rows may name. accepts: how a checkpoint is given that has no flowcache.json,
    for messages; "" where there must be one.
    """

    name: str
    traits: Traits = Traits()
    policies: Sequence[PolicyDeclaration]
    counts: Counts
    accepts: str = ""

    # A checkpoint on disk.

    def marks(self, path: Path) -> Mapping[str, Sequence[str]]:
        """Layout -> files at a folder's top that say that such a checkpoint of this family lies there.

        path: also a file that somebody named.
        """
        return {}

    def published(self, layout: Layout) -> dict[str, Any]:
        """What a flowcache.json would say of a checkpoint that has none, known by its marks. InputError."""
        raise NotImplementedError(f"family {self.name} has marks and no `published`")

    def look_alike(self, layout: Layout) -> list[Problem]:
        """Why what lies there without a flowcache.json is another model, though it is laid out as this family's."""
        return []

    def doubts(self, layout: Layout) -> list[Problem]:
        """What speaks against such a checkpoint and proves nothing, such as its name: for warnings."""
        return []

    @abstractmethod
    def layout(self, path: Path) -> Layout:
        """Where the parts lie of a checkpoint that is this family's. InputError where that can't be told."""

    def pipeline(self, raw: Any) -> Any:
        """What flowcache.json says under "pipeline", which is the family's own; None: nothing. TypeError."""
        if raw is not None:
            raise TypeError(f"models of family {self.name} have none")

    @abstractmethod
    def heads(self, layout: Layout) -> int:
        """With keys and values of their own. InputError."""

    @abstractmethod
    def config(self, layout: Layout) -> Config:
        """InputError names what is missing or wrong."""

    def damage(self, layout: Layout, config: Any) -> list[Problem]:
        """Faults of the files beside weights and configs, in those that are there."""
        return []

    # What it is asked to render.

    def defaults(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Fields of a row that neither it nor the job says, where they are not the spec's own."""
        return {}

    def finds_lag(self, values: Mapping[str, Any], spec: ModelSpec) -> bool:
        """Whether `settings` finds from a row's other fields how far chunks lie apart, where nothing says it."""
        return False

    def negative_prompts(self) -> Mapping[str, str]:
        """Texts that rows may give by a name as their negative prompt."""
        return {}

    def check(self, asked: Asked, spec: ModelSpec) -> Iterable[tuple[str, str]]:
        """(field, message) of all that this model can't do."""
        return ()

    @abstractmethod
    def settings(self, request: RenderRequest, spec: ModelSpec) -> "Settings":
        """How to denoise: what the request says, and the model where it says nothing."""

    @abstractmethod
    def compared(self, settings: Any) -> "Mapping[str, tuple[Settings, Policy]]":
        """What a plan compares a request with, by name: how it would be denoised, nothing reused."""

    def preset_steps(self, spec: ModelSpec, layout: Layout) -> Mapping[str, int]:
        """By preset, how many of the default steps it computes, where that is known without rendering."""
        return {}

    # In memory.

    @abstractmethod
    def part(self, layout: Layout) -> "Part[VideoModule]":
        """The transformer on disk. InputError for a damaged config."""

    @abstractmethod
    def build(self, config: Any) -> "VideoModule":
        """An untrained transformer."""

    def keep_float32(self, name: str) -> bool:
        """Whether a parameter stays so in a model of half precision."""
        return False

    def text_part(self, path: Path) -> "Part | None":
        """The text encoder on disk, for `models check`."""
        return None

    @abstractmethod
    def text_encoder(self, layout: Layout, config: Any, device: str, dtype: "torch.dtype") -> "WordEncoder": ...

    def cleaned(self, prompt: str) -> str:
        """What of a prompt is given to the tokenizer."""
        return prompt

    def text_room(self, config: Any, request: RenderRequest) -> int:
        """How many tokens of a prompt the model sees, the one at its end included."""
        return config.text_len

    def text(self, layout: Layout, config: Any, texts: PreparedTexts) -> "TextEncoder":
        """What a `LoadedModel` has as such."""
        return texts

    def codecs(self) -> Mapping[str, CodecKind]:
        """Codecs of its own, by the `_class_name` of their config.json."""
        return {}

    # Bytes.

    @abstractmethod
    def kept(self, spec: ModelSpec) -> Kept:
        """By a window that keeps all K/V that are ever seen, and reuses."""

    @abstractmethod
    def codec_bytes(self, spec: ModelSpec, tile: int | None, dtype: Dtype) -> int:
        """Of decoding frames of the spec's size and fps, whole or in squares of `tile` pixels a side, weights included.

        dtype: of the weights; "auto": as on a GPU.
        """
