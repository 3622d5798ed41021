"""What differs between the two models that are trained here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from training.magi import checkpoint as magi_checkpoint
from training.magi import data as magi_data
from training.magi import loss as magi_loss
from training.magi import model as magi_model
from training.magi import noise as magi_noise
from training.magi import preview as magi_preview
from training.skyreels import checkpoint, loss, model, noise, preview
from training.task import Length, Loss


@dataclass(frozen=True)
class Family:
    """build: of a number of words, a module with `transformer` and `text_encoder`.

    draw(length, mix, shares, codec, rng), noised(length, scene, level, codec, generator): a row; together(rows): a
    batch, whose loss(model, tokenizer, batch) is learned from. preview(model, tokenizer, prompts, length, guidance=,
    seed=): clean latents.
    spec, write(model, tokenizer, folder): what an exported checkpoint says of itself, and its files;
    take_up(module, folder) reads them again.
    by_timestep: what reuse is decided by follows from the timestep alone, not from the latents.
    matrices: prefix of the names of the transformer's blocks; slow: prefixes of what conditions them.
    """

    name: str
    causal: bool  # the codec's first latent frame is one video frame
    lengths: dict[str, Length]
    shares: type[Any]  # a dataclass
    build: Callable[[int], nn.Module]
    draw: Callable[..., Any]
    noised: Callable[..., Any]
    together: Callable[[list[Any]], Any]
    loss: Callable[..., Loss]
    preview: Callable[..., Tensor]
    spec: dict[str, Any]
    write: Callable[..., None]
    take_up: Callable[..., None]
    matrices: str
    slow: tuple[str, ...]
    by_timestep: bool


FAMILIES = {
    "skyreels": Family(
        "skyreels", True, loss.LENGTHS, noise.Shares, model.Tiny, loss.draw, loss.noised, loss.together, loss.loss_of,
        preview.denoise, checkpoint.SPEC, checkpoint.write, checkpoint.take_up,
        matrices="transformer.blocks.", slow=("text_encoder.", "transformer.time_"), by_timestep=True,
    ),
    "magi": Family(
        "magi", False, magi_data.LENGTHS, magi_noise.Shares, magi_model.Tiny, magi_data.draw, magi_data.noised,
        magi_data.together, magi_loss.loss_of, magi_preview.denoise, magi_checkpoint.SPEC, magi_checkpoint.write,
        magi_checkpoint.take_up, matrices="transformer.videodit_blocks.layers.",
        slow=("text_encoder.", "special_tokens", "transformer.t_embedder."), by_timestep=False,
    ),
}  # fmt: skip
