"""A part of a checkpoint (transformer, codec, text encoder): a module, and the tensors on disk that fill it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from flowcache.errors import InputError, Problem
from flowcache.models.eight_bit import held, matrices, unpacked
from flowcache.models.stored import FLOATS, FLOATS8, TAKE, Stored
from flowcache.models.tensors import read
from flowcache.records import Weights

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Part(Generic[M]):
    """`module` lies on the meta device. `rename`: stored name -> parameter name, or None for another layout's.

    `tied`: parameters that share another's tensor and need none of their own.
    """

    where: Path
    module: M
    stored: list[Stored]
    rename: Callable[[str], str | None] = lambda name: name
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> int:
        """How many learned numbers lie on disk."""
        return sum(math.prod(entry.shape) for entry in self.stored)

    @property
    def precision(self) -> str:
        """The dtypes on disk, but for scales."""
        return ", ".join(sorted({entry.dtype for entry in self.stored}))

    def problems(self) -> list[Problem]:
        """Every tensor that is missing, unknown, doubled, of another layout, shape or dtype."""
        expected = self.module.state_dict()
        found: dict[str, Stored] = {}
        problems = []
        for entry in self.stored:
            name = self.rename(entry.name)
            message = self._message(entry, name, expected, found)
            if message:
                problems.append(Problem(str(entry.file), entry.name, message))
            if name is not None:
                found[name] = entry
        missing = [name for name in expected if name not in found and self.tied.get(name, name) not in found]
        problems += [Problem(str(self.where), name, "is missing") for name in sorted(missing)]
        return problems or self._scale_problems()

    def _scale_problems(self) -> list[Problem]:
        """What shapes do not show of weights of 8 bits: a scale that is lost or spoilt makes noise of them."""
        eight = [entry for entry in self.stored if entry.dtype in FLOATS8 and len(entry.shape) > 1]
        lone = [entry for entry in eight if not entry.scales]
        message = f"has no weight_scale, which the others of 8 bits have; {TAKE}"
        problems = [Problem(str(entry.file), entry.name, message) for entry in lone if len(lone) < len(eight)]
        for entry, tensor in read(self._scales, "cpu"):
            if not (tensor.float().isfinite() & (tensor > 0)).all():
                problems.append(
                    Problem(str(entry.file), entry.name, f"holds other than finite numbers above 0; {TAKE}")
                )
        return problems

    @staticmethod
    def _message(entry: Stored, name: str | None, expected: Mapping, found: Mapping[str, Stored]) -> str | None:
        if name is None:
            return "is a name of the other layout: files of two layouts are mixed"
        if name not in expected:
            return "is no tensor of this model"
        if name in found:
            return f"is there twice: also as {found[name].name} in {found[name].file.name}"
        shape = list(expected[name].shape)
        if shape != list(entry.shape if list(entry.shape) == shape else entry.matrix):
            return f"has shape {list(entry.shape)}, the config asks for {shape}"
        if entry.dtype not in (*FLOATS, *FLOATS8):
            return f"has dtype {entry.dtype}; accepted: {', '.join((*FLOATS, *FLOATS8))}; {TAKE}"
        return entry.misfit

    def load(
        self,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        keep: Callable[[str], bool] = lambda name: False,
        weights: Weights = "auto",
    ) -> M:
        """The module on `device`, tensor by tensor, in `dtype`; what `keep` names in float32. InputError as above.

        weights: see `records.Weights`; of a transformer alone.
        """
        return self.filled(self.tensors(device, dtype, keep, weights=weights))

    def tensors(
        self,
        device: str | torch.device,
        dtype: torch.dtype,
        keep: Callable[[str], bool],
        rows: Callable[[str], slice | None] = lambda name: None,
        weights: Weights = "auto",
    ) -> dict[str, Tensor]:
        """By parameter name, as `load` has them; `rows`: which ones of a parameter are read, None: all."""
        problems = self.problems()
        if problems:
            raise InputError(problems)
        eight = set() if weights == "auto" else matrices(self.module)
        scales = {entry.name: tensor for entry, tensor in read(self._scales, "cpu")}
        state = {}
        for entry, tensor in read(self.stored, device, lambda entry: self._part(entry, rows)):
            name = self.name_of(entry)
            number = torch.float32 if keep(name) else dtype
            cut = rows(name) if entry.scales else None
            beside = {key: scales[each.name] for key, each in entry.scales.items()}
            found = held(*unpacked(entry, tensor, beside), number, weights if name in eight else "auto")
            state[name] = found if cut is None else found[cut]
        for name, source in self.tied.items():
            tensor = state[name if name in state else source]
            state |= {name: tensor, source: state.get(source, tensor)}
        return state

    @property
    def _scales(self) -> list[Stored]:
        found = [scale for entry in self.stored for scale in entry.scales.values()]
        return sorted(found, key=lambda entry: entry.file)

    def _part(self, entry: Stored, rows: Callable[[str], slice | None]) -> slice | None:
        """What of it is read: with scales all."""
        return None if entry.scales else rows(self.name_of(entry))

    def name_of(self, entry: Stored) -> str:
        """The parameter that it fills. ValueError where `problems` names it as another layout's."""
        name = self.rename(entry.name)
        if name is None:
            raise ValueError(f"{entry.name} is a name of another layout")
        return name

    def filled(self, state: Mapping[str, Tensor]) -> M:
        """The module with these parameters, ready to be run."""
        self.module.load_state_dict(state, assign=True)
        return self.module.requires_grad_(False).eval()
