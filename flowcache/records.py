"""The plain records that pass between the layers. No dependencies, safe to pickle and to print."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

# How the matrices of a transformer's blocks are held: in 8 bits, or (auto) as the rest.
Weights = Literal["auto", "int8", "fp8"]
Dtype = Literal["auto", "bf16", "fp32"]
Rate = int | Fraction  # frames per second; a whole number is an int


def read_rate(written: Any) -> Rate:
    """A rate as JSON has it: a whole number, or a fraction in text such as "24000/1001". ValueError: neither."""
    if isinstance(written, str) and (parts := re.fullmatch(r"(\d{1,9})/(\d{1,9})", written)) and int(parts[2]):
        return plain_rate(Fraction(int(parts[1]), int(parts[2])))
    if isinstance(written, int | Fraction):
        return plain_rate(written)
    raise ValueError(f"{written!r:.60} is no frame rate")


def write_rate(rate: Rate) -> int | str:
    """What `read_rate` reads."""
    return rate if isinstance(rate, int) else str(rate)


def plain_rate(rate: Rate) -> Rate:
    """A whole one as an int."""
    return int(rate) if isinstance(rate, Fraction) and rate.denominator == 1 else rate


@dataclass(frozen=True)
class Precision:
    """In what numbers a model is held. dtype: of the transformer, `weights` but for its blocks' matrices; vae_dtype: of
    the VAE. "auto" is what it is on a GPU: bf16, and the VAE as its official program has it.
    """

    dtype: Dtype = "auto"
    weights: Weights = "auto"
    vae_dtype: Dtype = "auto"

    @property
    def element(self) -> int:
        """Bytes of a number of the transformer's."""
        return 4 if self.dtype == "fp32" else 2

    def on(self, device: str) -> "Precision":
        """Where "auto" is fp32, that is said."""
        if device.startswith("cuda"):
            return self
        dtype: Dtype = "fp32" if self.dtype == "auto" else self.dtype
        return Precision(dtype, self.weights, "fp32" if self.vae_dtype == "auto" else self.vae_dtype)


@dataclass(frozen=True)
class ModelSpec:
    """What a checkpoint says about itself (its `flowcache.json`), known without loading weights.

    Lengths are in latent frames unless the name says otherwise; `video_frames` gives what they show.
    """

    name: str
    family: str  # "skyreels", "magi" or that of a package that adds one
    path: str  # folder of the checkpoint, or its config file (MAGI-1)
    digest: str  # sha256 over all files of the checkpoint
    chunk: int  # latent frames denoised as one
    window: int  # latent frames of the longest segment, conditioning prefix included
    overlap: int  # latent frames of the segment before that condition the next one
    channels: int  # latent channels
    heads: int = 1  # attention heads with keys and values of their own, which the ranks of a gang share
    time_stride: int = 4
    causal: bool = True  # the codec's first latent frame is one video frame; else `time_stride` ones, as every other
    space_stride: int = 8
    patch: int = 2  # latent pixels per token and side
    fps: int = 24
    width: int = 960
    height: int = 544
    sizes: tuple[tuple[int, int], ...] = ()  # (width, height) that the model knows; empty: any multiple
    frames: int = 97  # default length in video frames
    steps: int = 50
    max_steps: int = 1000
    guidance: float = 6.0
    shift: float = 8.0
    ar_step: int = 5
    condition_noise: float = 20.0  # timestep to which a later window's prefix is noised
    negative_prompt: str = ""
    reuse: dict[str, Any] = field(default_factory=dict)  # presets of `paper`: {"slow": {...}, "fast": {...}}
    calibrations: tuple[Any, ...] = ()  # `cache.fixed_steps.Preset`s of policy flowcache
    pipeline: Any = None  # what its family alone has to say, in a record of the family's own
    vocabulary: tuple[str, ...] = ()  # the only words that a tiny model knows; empty: any

    @property
    def size_step(self) -> int:
        """Width and height are multiples of this many pixels."""
        return self.space_stride * self.patch

    def chunk_tokens(self, width: int, height: int) -> int:
        """Tokens of one chunk of frames of that many pixels."""
        return self.chunk * (width // self.size_step) * (height // self.size_step)

    def video_frames(self, latent_frames: int) -> int:
        """Video frames of a fresh start that has so many latent frames."""
        return latent_frames * self.time_stride - (self.time_stride - 1 if self.causal else 0)

    def latent_frames(self, video_frames: int) -> int:
        """The inverse of `video_frames`, rounded down."""
        return (video_frames + (self.time_stride - 1 if self.causal else 0)) // self.time_stride

    def asked(self, fields: Mapping[str, Any]) -> "ModelSpec":
        """As a request with these fields wants it; windows are whole chunks, as near as can be to the model's own."""
        said = {name: fields[name] for name in SAMPLING if fields.get(name) is not None}
        if not said:
            return self
        chunk = said.get("causal_block_size", self.chunk)
        window, overlap = (max(frames // chunk, 1) * chunk for frames in (self.window, self.overlap))
        return replace(
            self,
            chunk=chunk,
            window=self.latent_frames(said["base_num_frames"]) if "base_num_frames" in said else window,
            overlap=self.latent_frames(said["overlap_history"]) if "overlap_history" in said else overlap,
            shift=said.get("shift", self.shift),
            condition_noise=said.get("addnoise_condition", self.condition_noise),
        )

    def fresh(self, shots: Sequence["Shot"]) -> int:
        """Latent frames, in whole chunks, of the shortest of a video's parts that start fresh and go on to the next
        cut; a window's at most."""
        parts = list[int]()
        for shot in shots:
            if shot.cut or not parts:
                parts.append(0)
            parts[-1] += shot.frames
        lead = self.chunk_frames - self.first_chunk_frames  # what the first chunk lacks
        return min(-(-(min(parts) + lead) // self.chunk_frames) * self.chunk, self.window)

    @property
    def chunk_frames(self) -> int:
        """Video frames of every chunk that continues."""
        return self.chunk * self.time_stride

    @property
    def first_chunk_frames(self) -> int:
        """Video frames of the first chunk of a fresh start."""
        return self.video_frames(self.chunk)

    @property
    def overlap_frames(self) -> int:
        """Video frames that a continuation needs from what came before."""
        return self.video_frames(self.overlap)


@dataclass(frozen=True)
class Shot:
    """One prompt for `frames` video frames. `cut`: starts fresh, and does not continue what came before."""

    prompt: str
    frames: int
    cut: bool = True


# Fields of a request that came after its ids and runs were first hashed: absent where nothing is said. Those of one
# family, which its `Traits.fields` names, and those of all.
SAMPLING = ("shift", "addnoise_condition", "base_num_frames", "overlap_history", "causal_block_size")
OWN = (*SAMPLING, "solver", "special_tokens", "prev_chunks_scale")
LATER = (*OWN, "fit", "video_from")


def said(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields, without those of LATER of which it says nothing."""
    return {name: value for name, value in fields.items() if value is not None or name not in LATER}


@dataclass(frozen=True)
class RenderRequest:
    """One video to render: a manifest row with every default filled in and every check passed.

    `image`: URL of the first frame of the first shot. `video`: URL of a video that the first shot
    continues; its frames are not repeated in the output. `end_image`: URL of what the last shot ends with.
    `fit`: how these are brought to size, "crop", "pad" or "stretch"; None: the family's way. `video_from`: whose
    "start" is continued in place of its end.
    `ar_step`: steps by which each chunk runs behind the one before it; 0: all together; None: the model's.
    `segment`: "all": shots that don't cut are denoised as one; None: in windows of the model's length.
    """

    id: str
    shots: tuple[Shot, ...]
    width: int
    height: int
    fps: Rate
    seed: int
    guidance: float
    steps: int
    model: str  # name or path, as `families.registry.find` takes it
    policy: dict[str, Any]  # {"name": "paper", "preset": "slow", ...overrides}
    negative_prompt: str = ""
    image: str | None = None
    video: str | None = None
    media_sha256: str | None = None  # of the image or video
    end_image: str | None = None
    end_image_sha256: str | None = None
    ar_step: int | None = None
    segment: str | None = None
    priority: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    # Not said in what is hashed or stored of requests that leave them to the model or the family, see LATER.
    shift: float | None = None
    addnoise_condition: float | None = None  # `ModelSpec.condition_noise`
    base_num_frames: int | None = None  # `ModelSpec.window`, in video frames
    overlap_history: int | None = None  # `ModelSpec.overlap`, in video frames
    causal_block_size: int | None = None  # `ModelSpec.chunk`, in latent frames
    solver: str | None = None  # SkyReels-V2: "official" or "corrected"; None: as the policy has it
    special_tokens: tuple[str, ...] | None = None  # MAGI-1: what its captions are marked with
    prev_chunks_scale: float | None = None  # distilled MAGI-1: what the chunks before weigh against the copy alone
    fit: str | None = None
    video_from: str | None = None

    @property
    def frames(self) -> int:
        return sum(shot.frames for shot in self.shots)

    @property
    def nominal_fps(self) -> int:
        """As models know rates, which have learned whole ones: 24 of 24000/1001."""
        return round(self.fps)

    def to_dict(self) -> dict[str, Any]:
        plain = {"fps": write_rate(self.fps), "shots": [dict(vars(shot)) for shot in self.shots]}
        return said({**vars(self), **plain})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RenderRequest":
        lists = {name: tuple(data[name]) for name in ("special_tokens",) if name in data}
        shots = tuple(Shot(**shot) for shot in data["shots"])
        return cls(**{**data, **lists, "fps": read_rate(data["fps"]), "shots": shots})


@dataclass(frozen=True)
class MediaInfo:
    """A picture or video that was opened and decoded. `seconds`: from the first frame's time to the last's."""

    url: str  # absolute: what a worker on another node can open
    width: int
    height: int
    frames: int = 1
    fps: float = 0.0  # 0 for a picture
    seconds: float = 0.0
    sha256: str | None = None  # of the file, so that a worker notices when it was replaced

    def frames_at(self, fps: Rate) -> int:
        """How many frames it gives when sampled at `fps` (a quarter frame forgiven: some formats round times)."""
        return math.floor(self.seconds * fps + 0.25) + 1


@dataclass(frozen=True)
class Segment:
    """Consecutive chunks of one shot: the unit of scheduling, retry and commit.

    Its output is a pure function of (request, index, tail latents of segment `after`).
    """

    video_id: str
    index: int  # 0-based, over the whole video
    shot: int  # 0-based
    first_chunk: int  # 0-based, over the whole video
    chunks: int  # chunks that it outputs; a conditioning prefix comes on top
    start_frame: int  # first video frame of its output, over the whole video
    frames: int  # video frames of its output
    after: int | None = None  # the segment whose tail it continues; None: starts fresh


@dataclass(frozen=True)
class ChunkRecord:
    """One finished chunk as the store knows it. What came with later versions is None in older markers."""

    chunk: int  # over the whole video
    key: str  # media key relative to the root
    sha256: str
    bytes: int
    frames: int
    start_frame: int
    steps_computed: int  # transformer forwards of this chunk, both guidance branches
    steps_reused: int
    denoise_seconds: float
    decode_seconds: float
    encode_seconds: float
    upload_seconds: float
    kv_bytes: int | None = None  # of its window's K/V storage, on each rank
    # A character a step: 1 computed, 0 reused, - not asked for; guidance branches in turn, with / between them.
    decisions: str | None = None
    flaw: str | None = None  # what its pixels look like: black, frozen or saturated
    forwards: int | None = None  # all that ran since the chunk before was finished, those for K/V alone included
    residuals: list[float] | None = None  # of the jumps of a budget's schedule, from one computed step to the next
    residual_ratio: float | None = None  # the largest of them to what calibration saw
