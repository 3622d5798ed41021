"""A GPU that is only pretended: torch code runs on cuda tensors without one, and what it would take is counted.

cuda tensors hold no values (torch's FakeTensorMode), so true sizes cost nothing; tensors on the CPU are real. A value
that is read from the GPU is 1. Counted are kernels (operations, bytes), memory (by the lifetimes of storages), and what
makes the host wait.
"""

import math
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

DEVICE = torch.device("cuda:0")  # with a number: without one torch would ask the driver for it
aten, COMPOSITE = torch.ops.aten, torch._C.DispatchKey.CompositeImplicitAutograd
SCALED = aten.scaled_dot_product_attention
# Queries, keys and values first; log-sum-exp second in what they give.
FUSED = (aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention)
MASKS = (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index)
SIZED_BY_VALUES = (aten.nonzero, aten.masked_select, aten.repeat_interleave)
WRITERS = (aten.copy_, aten.fill_, aten.zero_)  # whose first tensor is not read
PACKAGE = Path(__file__).parents[1] / "flowcache"


Kind = tuple[str, str]  # "matmul", "convolution", "attention", "masked attention" or "rest", and the precision
Place = tuple[str, str]  # what happens, and the line of flowcache where it does
Kernel = tuple[int, int]  # floating-point operations; bytes read and written


@dataclass
class Tally:
    """kernels: of each kind, how many there are of each size. waits: what makes the host wait for the GPU.

    mixed: kernels that take tensors of both devices. held, peak: bytes of storages now, and at most.
    """

    kernels: dict[Kind, Counter[Kernel]] = field(default_factory=dict)
    waits: Counter[Place] = field(default_factory=Counter)
    mixed: Counter[Place] = field(default_factory=Counter)
    held: int = 0
    peak: int = 0

    def clear(self) -> None:
        """Count anew; memory that is held stays so."""
        self.kernels, self.waits, self.mixed, self.peak = {}, Counter(), Counter(), self.held


class PretendGPU(TorchDispatchMode):
    """Counts into `tally` what happens on cuda tensors while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self._storages: dict[int, weakref.finalize] = {}
        self._busy = False  # a kernel was started since a value was read

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        if func.namespace == "prim":  # a question, such as for the device
            return func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if on_gpu(x)]
        if not (there and packet in SHAPED) and composite(func):  # in inference mode they come whole
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        if not there and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if (read := self._read(packet, args, kwargs)) is not None:
            return read
        self._look(packet, args, kwargs, tensors, there)
        result = SHAPED[packet](*args[:3]) if there and packet in SHAPED else func(*args, **kwargs)
        self._count(func, args, kwargs, there, result)
        return result

    def _read(self, packet: Any, args: tuple, kwargs: dict) -> Any:
        """What the host gets to see; None where it reads nothing."""
        source = args[0] if args else None
        if packet is aten._local_scalar_dense:
            if self._busy:  # else the host has already waited: it reads a list number by number
                self.tally.waits["value read", here()] += 1
            self._busy = False
            return {torch.bool: True, torch.int64: 1}.get(source.dtype, 1.0)
        if packet is aten._to_copy and torch.device(kwargs.get("device") or source.device).type == "cpu":
            self.tally.waits["copied to the host", here()] += 1
            with unset_fake_temporarily():
                return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        if packet is aten.copy_ and not on_gpu(source):
            self.tally.waits["copied to the host", here()] += 1
            with unset_fake_temporarily():
                return source.fill_(1)
        return None

    def _look(self, packet: Any, args: tuple, kwargs: dict, tensors: list[Tensor], there: list[Tensor]) -> None:
        """For what makes the host wait, or mixes devices."""
        uploads = packet in (aten._to_copy, aten.copy_)
        foreign = [x for x in tensors if not on_gpu(x)]
        if uploads and foreign and not kwargs.get("non_blocking") and not (packet is aten.copy_ and args[-1] is True):
            self.tally.waits["copied from the host", here()] += 1
        masks = [x for x in tree_leaves(args[1:2]) if isinstance(x, Tensor) and x.dtype == torch.bool]
        if packet in SIZED_BY_VALUES or (packet in MASKS and masks):
            self.tally.waits["size depends on values", here()] += 1
        if there and not uploads and any(x.dim() for x in foreign):
            self.tally.mixed[str(packet), here()] += 1

    def _count(self, func: Any, args: tuple, kwargs: dict, there: list[Tensor], result: Any) -> None:
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and on_gpu(x)]
        for x in made:
            self._hold(x)
        if (
            not made
            or func.overloadpacket in (aten.empty, aten.empty_strided, aten.new_empty)
            or is_view(func, there, made)
        ):
            return
        self._busy = True
        written = {id(x) for x in (*args[: func.overloadpacket in WRITERS], kwargs.get("out"))}
        read = {id(x): x for x in there if id(x) not in written}
        moved = sum(map(touched, (*read.values(), *made)))
        precision = str(max((x.dtype for x in there or made), key=lambda kind: kind.itemsize)).removeprefix("torch.")
        kind, flops = "rest", 0
        if func.overloadpacket is SCALED or func.overloadpacket in FUSED:
            masked = kwargs.get("attn_mask") is not None or len(args) > 3 and isinstance(args[3], Tensor)
            kind, flops = "masked attention" if masked else "attention", attention_flops(*args[:3])
        elif func.overloadpacket is aten._addmm_activation:
            kind, flops = "matmul", flop_registry[aten.addmm](*args[:3], out_val=result)
        elif func.overloadpacket in flop_registry:
            kind = "convolution" if func.overloadpacket is aten.convolution else "matmul"
            factors = args[:2] if func.overloadpacket is aten.bmm else args  # the registry knows no `out_dtype`
            flops = flop_registry[func.overloadpacket](*factors, **kwargs, out_val=result)
            precision = str(there[-1].dtype).removeprefix("torch.")  # of the factors; a bias may come first
        self.tally.kernels.setdefault((kind, precision), Counter())[flops, moved] += 1

    def _hold(self, tensor: Tensor) -> None:
        storage, tally = tensor.untyped_storage(), self.tally
        if (key := id(storage)) in self._storages:
            return
        size = storage.nbytes()
        tally.held += size
        tally.peak = max(tally.peak, tally.held)

        def free() -> None:
            tally.held -= size
            del self._storages[key]

        self._storages[key] = weakref.finalize(storage, free)
        self._storages[key].atexit = False


class StandIns(TorchFunctionMode):
    """What torch does in C++ under a guard that needs a real device."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.__getitem__ and on_gpu(args[0]):
            return indexed(*args)
        if func is Tensor.contiguous and on_gpu(args[0]):
            return args[0] if args[0].is_contiguous() else args[0].clone(memory_format=torch.contiguous_format)
        if func is Tensor.pin_memory:
            return args[0]
        if func is Tensor.copy_ and on_gpu(args[0]):
            return aten.copy_(*args, **kwargs or {})
        if func is Tensor.__setitem__ and on_gpu(args[0]):
            return put(*args)
        return func(*args, **kwargs or {})


def sliced(x: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """x with all of an index done but its tensors, and these by dimension."""
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(x.dtype != torch.bool or x.dim() if isinstance(x, Tensor) else x is not None for x in parts)
    if Ellipsis not in [part for part in parts if not isinstance(part, Tensor)]:
        parts.append(Ellipsis)
        taken += 1
    rest, dim, places = x.dim() - (taken - 1), 0, []
    for part in parts:
        if part is None:
            x, step = x.unsqueeze(dim), 1
        elif part is Ellipsis:
            step = rest
        elif isinstance(part, slice):
            begin, end, stride = part.indices(x.shape[dim])
            x, step = aten.slice(x, dim, begin, max(begin, end), stride), 1
        elif isinstance(part, int):
            x, step = x.select(dim, part), 0
        else:
            given = part if isinstance(part, Tensor) else torch.tensor(part)
            places, step = [*places, (dim, given)], given.dim() if given.dtype == torch.bool else 1
        dim += step
    found: list[Tensor | None] = [None] * (max((place for place, _ in places), default=-1) + 1)
    for place, given in places:
        found[place] = given
    return x, found


def indexed(x: Tensor, index: Any) -> Tensor:
    x, places = sliced(x, index)
    return aten.index(x, places) if places else x


def put(x: Tensor, index: Any, value: Any) -> None:
    x, places = sliced(x, index)
    value = value if isinstance(value, Tensor) else torch.full((), value, dtype=x.dtype, device=x.device)
    if places:
        aten.index_put_(x, places, value)
    else:
        aten.copy_(x, value)


@contextmanager
def pretend_gpu() -> Iterator[Tally]:
    """In the block tensors on DEVICE are pretended. What is counted is the tally that it gives."""
    gpu = PretendGPU()
    with FakeTensorMode(allow_non_fake_inputs=True), gpu, StandIns():
        yield gpu.tally


def filled(module: nn.Module, dtype: torch.dtype, keep: Callable[[str], bool] = lambda name: False) -> Any:
    """A module of the meta device with parameters on DEVICE, as `Part.load` makes it."""
    state = {
        name: torch.empty(x.shape, dtype=torch.float32 if keep(name) else dtype, device=DEVICE)
        for name, x in module.state_dict().items()
    }
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


@cache
def composite(func: Any) -> bool:
    """Whether C++ makes it of several operators."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE)


def is_view(func: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    """Whether nothing was computed (not all views are declared as such)."""
    shared = {id(x.untyped_storage()) for x in given}
    return not func._schema.is_mutable and all(id(x.untyped_storage()) in shared for x in made)


def on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def touched(tensor: Tensor) -> int:
    """Bytes that a kernel reads or writes of it: what is expanded is there once."""
    spread = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(spread) * tensor.itemsize


def attention_like(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, heads, T, D] as the kernels lay it out: heads beside one another."""
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)


def attention_flops(q: Tensor, k: Tensor, v: Tensor) -> int:
    return 2 * q.shape[:3].numel() * k.shape[2] * (k.shape[3] + v.shape[3])


SHAPED = {  # what FakeTensorMode has no shapes for, or takes apart though a GPU has a kernel
    SCALED: attention_like,
    aten.upsample_trilinear3d: lambda x, size, _: x.new_empty(*x.shape[:2], *size),
    aten._fused_rms_norm: lambda x, *_: (torch.empty_like(x), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)),
}


def here() -> str:
    """The line of the package that runs."""
    for frame in reversed(traceback.extract_stack()):
        if PACKAGE in Path(frame.filename).parents:
            return f"{Path(frame.filename).relative_to(PACKAGE)}:{frame.lineno} {frame.name}"
    return "outside"
