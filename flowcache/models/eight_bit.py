"""Weights held in 8 bits. All is computed in the precision of the rest: no layer knows of it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from flowcache.models.base import VideoModule
from flowcache.models.stored import INPUT_SCALES, SMOOTH, WEIGHT_SCALES, Stored

FORMATS: Mapping[str, tuple[torch.dtype, float]] = {
    "int8": (torch.int8, 127.0),
    "fp8": (torch.float8_e4m3fn, 448.0),
}  # and the largest value of each
SMALLEST = 1e-20  # of a row's scale: one of zeros divides nothing by 0


class EightBit(Tensor):
    """A matrix [out, in] held in 8 bits; every operation sees packed * scale, in the `dtype` that it has for others."""

    packed: Tensor  # int8 or float8, [out, in]
    scale: Tensor  # [out or 1, in or 1], of `dtype` or wider

    @staticmethod
    def __new__(cls: type, packed: Tensor, scale: Tensor, dtype: torch.dtype) -> "EightBit":
        made = Tensor._make_wrapper_subclass(cls, packed.shape, dtype=dtype, device=packed.device)  # pyright: ignore
        made.packed, made.scale = packed, scale
        return made

    def whole(self) -> Tensor:
        """Rounded once, to `dtype`."""
        return self.packed.to(self.scale.dtype).mul_(self.scale).to(self.dtype)

    def __tensor_flatten__(self) -> tuple[list[str], torch.dtype]:
        """For torch.compile, as the next two."""
        return ["packed", "scale"], self.dtype

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], dtype: torch.dtype, size: Any, stride: Any) -> "EightBit":
        return EightBit(inner["packed"], inner["scale"], dtype)

    def _stable_hash_for_caching(self) -> str:
        return f"{self.dtype} {self.packed.dtype} {self.scale.dtype} {list(self.scale.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, _: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.ops.aten.detach.default:  # of nn.Parameter
            return EightBit(args[0].packed, args[0].scale, args[0].dtype)
        whole: tuple[tuple, dict[str, Any]] = tree_map_only(EightBit, EightBit.whole, (args, kwargs or {}))
        return func(*whole[0], **whole[1])


def packed(weight: Tensor, kind: str, dtype: torch.dtype) -> EightBit:
    """A matrix [out, in] rounded to 8 bits, each row by its largest value. dtype: as others see it.

    The scale is rounded to `dtype` before the weights are divided by it, so that it adds no error of its own.
    """
    number, largest = FORMATS[kind]
    weight = weight.float()
    scale = (weight.abs().amax(1, keepdim=True) / largest).clamp(min=SMALLEST).to(dtype)
    values = (weight / scale.float()).clamp(-largest, largest)
    return EightBit((values.round() if kind == "int8" else values).to(number), scale, dtype)


def unpacked(entry: Stored, tensor: Tensor, scales: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """What is stored as values and, of a weight of 8 bits [out, in], the float32 scale that goes with them; None: 1.

    scales: those of the entry. MAGI-1 divides inputs by scales of their own (`smooth_scale`, or one `input_scale` for
    each channel) and multiplies products by one number: both are the weight's here. Other scales of inputs say how to
    round these, which is not done.
    """
    if not scales:
        return tensor, None
    found = {key: scale.float().to(tensor.device).reshape(-1) for key, scale in scales.items()}
    scale = next((found[key] for key in WEIGHT_SCALES if key in found), torch.ones(1, device=tensor.device))[:, None]
    given = found.get(INPUT_SCALES[0], torch.ones(1, device=tensor.device))
    if SMOOTH in found:
        scale = scale * given[None, :1] / found[SMOOTH]
    elif len(given) > 1:
        scale = scale * given[None, :1] / given
    return tensor.reshape(entry.matrix), scale


def held(tensor: Tensor, scale: Tensor | None, dtype: torch.dtype, kind: str) -> Tensor:
    """What was stored in `dtype`, or as a matrix that others see so; kind: see `records.Weights`.

    What is of float8 on disk is held as it is.
    """
    if kind == "fp8" and tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        return EightBit(tensor, torch.ones(1, 1, dtype=dtype, device=tensor.device) if scale is None else scale, dtype)
    if scale is not None:
        tensor = tensor.float() * scale
    return tensor.to(dtype) if kind == "auto" else packed(tensor, kind, dtype)


def matrices(model: VideoModule) -> set[str]:
    """The weights that are held in 8 bits where that is asked for: those of every linear layer in the blocks."""
    prefix = next(name for name, module in model.named_modules() if module is model.blocks)
    return {f"{name}.weight" for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.startswith(f"{prefix}.")}  # fmt: skip
