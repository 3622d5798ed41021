"""How a run is carried out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from flowcache.errors import Problem
from flowcache.families.known import family
from flowcache.inputs.hooks import FINISH, MARKS, function_fault, watermark_fault
from flowcache.records import Dtype, ModelSpec, Precision, Weights

SHARDING = "2.13"  # the first torch whose FSDP2 can be told to forget its notes (`reset_iter_state`)

TOGETHER = "got {} with --shard-weights; accepted: one of them, weights in 8 bits or a part of them"

ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")  # of a Ray cluster's head

Device = Literal["auto", "cpu", "cuda"]
Tiling = Literal["auto", "on", "off"]
# What changes bytes, where nothing is asked for.
NUMERICS = {"dtype": "auto", "weights": "auto", "vae_dtype": "auto", "vae_tiling": "auto", "compile": "off",
            "watermark": "off", "watermark_payload": "none"}  # fmt: skip


@dataclass(frozen=True)
class RunOptions:
    """One object from the job to the ranks. What a job can say has the job's name; those defaults hold there, too.

    `gang`: ranks per gang. `gangs`: how many side by side; None: as many as the cluster holds.
    `shard_weights`: each rank of a gang holds a part of the transformer's weights (`parallel.sharding`).
    `threads`: CPUs and torch threads per rank. `device`: auto, cpu or cuda. `address`: of a Ray cluster; None: one is
    started here. `retries`: attempts that a segment may lose to its own exceptions, `infra_retries`: to lost processes
    and stalls. `segment_timeout`: seconds without a finished chunk (loading the model included) after which a gang
    counts as lost. `exchange_timeout`: seconds that an exchange between the ranks of a gang may take, waiting for the
    slowest included. `start_timeout`: seconds that a gang may take to come up. `retry_failed`: dead-lettered videos are
    tried again. `until`: unix seconds after which no segment is started any more; `grace`: seconds that segments under
    way get after a SIGTERM. `wait_for_gpus`: seconds for which a cluster without a GPU is waited for. `started_as`:
    the name of what starts this run, and starts it again where it fails; None: nothing does. `patience`: seconds for
    which a store that does not answer is waited for. `idle_release`: seconds after which a gang without work gives its
    resources back. `allow_private_media`: pictures and videos at http:// and https:// may lie at addresses that are
    not public.
    `dtype`: bf16, fp32 or auto; `weights`: int8, fp8 or auto (`records.Weights`); `vae_dtype`: of the VAE, as `dtype`;
    `vae_tiling`: on, off or auto; `compile`: the transformers' blocks (`models.compile.compile_blocks`);
    `watermark`: what marks the frames, a name of `hooks.MARKS` or module:function; `watermark_payload`: a text for it:
    these seven alone change what is rendered. `finish`: module:function that is run once for each finished video.
    """

    gang: int = 1
    gangs: int | None = None
    shard_weights: bool = False
    threads: int = 1
    device: Device = "auto"
    dtype: Dtype = "auto"
    weights: Weights = "auto"
    vae_dtype: Dtype = "auto"
    vae_tiling: Tiling = "auto"
    compile: bool = False
    watermark: str | None = None
    watermark_payload: str | None = None
    finish: str | None = None
    address: str | None = None
    retries: int = 2
    infra_retries: int = 5
    segment_timeout: float = 900.0
    exchange_timeout: float = 300.0
    start_timeout: float = 600.0
    retry_failed: bool = False
    until: float | None = None
    grace: float = 20.0
    wait_for_gpus: float = 0.0
    started_as: str | None = None
    patience: float = 1800.0
    idle_release: float = 120.0
    allow_private_media: bool = False

    @property
    def numerics(self) -> dict[str, str]:
        """What changes the rendered bytes and was asked for: part of the run's identity.

        "auto" is not, as the device and its memory are not.
        """
        asked = {name: getattr(self, name) for name in ("dtype", "weights", "vae_dtype", "vae_tiling")}
        asked["compile"] = "on" if self.compile else "off"
        asked |= {"watermark": self.watermark or "off", "watermark_payload": self.watermark_payload or "none"}
        return {name: value for name, value in asked.items() if value != NUMERICS[name]}

    @property
    def precision(self) -> Precision:
        return Precision(self.dtype, self.weights, self.vae_dtype)

    def faults(self, specs: Iterable[ModelSpec] = ()) -> list[Problem]:
        """What speaks against such a run of these models."""
        whole = sorted({spec.family for spec in specs if self.compile and not family(spec.family).traits.compiles})
        found = [Problem("--compile", "", f"models of family {name} can't be compiled; accepted: without it")
                 for name in whole]  # fmt: skip
        wrong = self.address and address_fault(self.address)
        found += [Problem("--address", "", wrong)] if wrong else []
        return found + self._sharding_faults() + list(self._hook_faults())

    def _hook_faults(self) -> Iterator[Problem]:
        if self.watermark is not None and (fault := watermark_fault(self.watermark)):
            yield fault
        if self.watermark is None and self.watermark_payload is not None:
            message = f"is given without --watermark; accepted: with it ({', '.join(MARKS)} or module:function)"
            yield Problem("--watermark-payload", "", message)
        if self.finish is not None and (fault := function_fault(FINISH, self.finish)):
            yield fault

    def _sharding_faults(self) -> list[Problem]:
        if not self.shard_weights:
            return []
        if self.weights != "auto":
            return [Problem("--weights", "", TOGETHER.format(self.weights))]
        if self.gang == 1:
            message = "got a gang of 1, which has nobody to share weights with; accepted: with --gang 2 or more"
            return [Problem("--shard-weights", "", message)]
        import torch  # not needed to read a job, on the machine that submits it

        if torch.__version__ < SHARDING:
            return [Problem("--shard-weights", "", f"got torch {torch.__version__}; accepted: {SHARDING} or newer")]
        return []


def address_fault(address: str) -> str | None:
    """What speaks against an address of a Ray cluster; None where nothing does."""
    if address in ("auto", "local") or ADDRESS.fullmatch(address):
        return None
    wanted = "accepted: 'auto', or the head's host and port such as head:6379"
    if address.startswith(("http://", "https://")):
        return f"got {address!r}, which is a dashboard's (flowcache submit --address takes that); {wanted}"
    return f"got {address!r}; {wanted}"
