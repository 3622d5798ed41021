"""What differs between the two models that are trained here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from training.magi import checkpoint as magi_checkpoint
from training.magi import loss as magi_loss
from training.magi import model as magi_model
from training.magi import preview as magi_preview
from training.magi.data import WORLD as MAGI_WORLD
from training.shapes import World
from training.skyreels import checkpoint, loss, model, preview


@dataclass(frozen=True)
class Family:
    """world: what it is trained to draw; it has tokens for all words of `training.shapes`, so that more can follow.

    build: of a number of words, a module with `transformer` and `text_encoder`.

    loss_of_step: see there. preview(model, tokenizer, prompts, guidance=, seed=): clean latents.
    spec, write(model, tokenizer, folder): what an exported checkpoint says of itself, and its files;
    take_up(module, folder) reads them again.
    by_timestep: what reuse is decided by follows from the timestep alone, not from the latents.
    matrices: prefix of the names of the transformer's blocks; slow: prefixes of what conditions them.
    """

    name: str
    world: World
    causal: bool  # the codec's first latent frame is one video frame
    build: Callable[[int], nn.Module]
    loss_of_step: Callable[..., Tensor]
    preview: Callable[..., Tensor]
    spec: dict[str, Any]
    write: Callable[..., None]
    take_up: Callable[[nn.Module, Path], None]
    matrices: str
    slow: tuple[str, ...]
    by_timestep: bool


FAMILIES = {
    "skyreels": Family(
        "skyreels", model.WORLD, True, model.Tiny, loss.loss_of_step, preview.denoise, checkpoint.SPEC,
        checkpoint.write, checkpoint.take_up,
        matrices="transformer.blocks.", slow=("text_encoder.", "transformer.time_"), by_timestep=True,
    ),
    "magi": Family(
        "magi", MAGI_WORLD, False, magi_model.Tiny, magi_loss.loss_of_step, magi_preview.denoise,
        magi_checkpoint.SPEC, magi_checkpoint.write, magi_checkpoint.take_up,
        matrices="transformer.videodit_blocks.layers.",
        slow=("text_encoder.", "special_tokens", "transformer.t_embedder."), by_timestep=False,
    ),
}  # fmt: skip
