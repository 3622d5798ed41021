"""What is known of a tensor on disk before it is read; weights of 8 bits together with their scales."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

FLOATS, FLOATS8 = ("F64", "F32", "F16", "BF16"), ("F8_E4M3", "F8_E5M2")

# What lies beside a weight of 8 bits: of MAGI-1 (dit_module.py, Per*QuantizedFp8Linear), of compressed-tensors, and
# under other names in ComfyUI's files.
WEIGHT_SCALES, INPUT_SCALES, SMOOTH = ("weight_scale", "scale_weight"), ("input_scale", "scale_input"), "smooth_scale"
MARK = "scaled_fp8"  # a tensor of ComfyUI's that holds nothing
TAKE = "take the checkpoint in bfloat16, with weights: int8 or fp8 where memory is short"


@dataclass(frozen=True)
class Stored:
    """One tensor of a file. `dtype` as safetensors names it; `tensor`: there already (memory-mapped), of a .pth.

    scales: what lies beside a weight of 8 bits, by the end of its name.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    tensor: Tensor | None = None
    scales: Mapping[str, "Stored"] = field(default_factory=dict)

    @property
    def matrix(self) -> tuple[int, ...]:
        """The shape without a first dimension of 1, as MAGI-1 stores its weights of 8 bits."""
        return self.shape[1:] if self.scales and len(self.shape) == 3 and self.shape[0] == 1 else self.shape

    @property
    def misfit(self) -> str | None:
        """What is wrong with the scales, but for their values."""
        names = [*self.scales]
        if names and not any(key in names for key in WEIGHT_SCALES):
            return f"has {names[0]} and no weight_scale; {TAKE}"
        official = len(self.shape) > len(self.matrix) or SMOOTH in names
        if official and not (INPUT_SCALES[0] in names and (SMOOTH in names or self._per_column(INPUT_SCALES[0]))):
            wanted = "input_scale, a number for each column or beside smooth_scale"
            return f"is stored as MAGI-1 stores its weights of 8 bits, without {wanted}; {TAKE}"
        for key, scale in self.scales.items():
            side = "row" if key in WEIGHT_SCALES else "column"
            several = self.matrix[0 if side == "row" else -1]
            if scale.dtype not in FLOATS:
                return f"has {key} of dtype {scale.dtype}; accepted: {', '.join(FLOATS)}; {TAKE}"
            if math.prod(scale.shape) not in (1, several) or sum(n > 1 for n in scale.shape) > 1:
                return f"has {key} of shape {list(scale.shape)}; accepted: one number, or one for each {side}; {TAKE}"
        return None

    def _per_column(self, key: str) -> bool:
        return math.prod(self.scales[key].shape) == self.matrix[-1]


def joined(stored: Iterable[Stored]) -> list[Stored]:
    """The same with what lies beside weights of 8 bits inside their entries."""
    found = {entry.name: entry for entry in stored}
    taken: set[str] = set()
    for name, entry in [*found.items()]:
        layer = name.removesuffix("weight")
        keys = (*WEIGHT_SCALES, *INPUT_SCALES, SMOOTH) if entry.dtype in FLOATS8 and layer != name else ()
        scales = {key: found[layer + key] for key in keys if layer + key in found}
        found[name] = replace(entry, scales=scales) if scales else entry
        taken |= {scale.name for scale in scales.values()}
    return [entry for name, entry in found.items() if name not in (taken and {*taken, MARK})]
