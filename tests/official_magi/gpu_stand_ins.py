"""What the official code imports and a CPU has not: PyTorch in place of GPU kernels, nothing in place of the rest."""

import importlib.machinery
import math
import pdb
import sys
import types

import torch
import torch.nn.functional as F


def module(name: str, **names: object) -> types.ModuleType:
    """One that `import` finds."""
    made = types.ModuleType(name)
    made.__spec__, made.__path__ = importlib.machinery.ModuleSpec(name, None), []
    vars(made).update(names)
    sys.modules[name] = made
    return made


def attention(q, k, v, **_):
    """[B, S, heads, head_dim]; queries that see no key get nothing."""
    if not k.shape[1]:
        return torch.zeros_like(q)
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(math.sqrt(q.shape[-1])).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def packed_attention(q, k, v, cu_seqlens_q, cu_seqlens_k, **_):
    queries, keys = (ends[1:-1].long().cpu() for ends in (cu_seqlens_q, cu_seqlens_k))
    parts = zip(q.tensor_split(queries), k.tensor_split(keys), v.tensor_split(keys), strict=True)
    return torch.cat([attention(*(x[None] for x in part))[0] for part in parts])


def rotated(x, cos, sin):
    """Halves of the first channels turned into each other."""
    turned, rest = x.split([2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], dim=-1)
    (a, b), cos, sin = turned.chunk(2, dim=-1), cos[None, :, None], sin[None, :, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def gated(x):
    gate, x = x.chunk(2, dim=-1)
    return F.silu(gate) * x


class Trapped(Exception):
    """The official code would have opened a debugger here."""


def trap(*_, **__):
    raise Trapped


def pretend() -> None:
    """To be called before anything official is imported."""
    module("flash_attn", flash_attn_varlen_func=packed_attention)
    module("flash_attn.flash_attn_interface", flash_attn_func=attention)
    module("flash_attn.layers")
    module("flash_attn.layers.rotary", apply_rotary_emb=rotated)
    module("flashinfer", activation=module("flashinfer.activation", silu_and_mul=gated))
    module("flashinfer.gemm", bmm_fp8=None)
    module("triton", jit=lambda function: function, language=module("triton.language", constexpr=int))
    module("matplotlib"), module("matplotlib.pyplot"), module("ffmpeg")
    module("inference.model.t5", T5Embedder=None)
    module("inference.model.vae", AutoModel=None, DiagonalGaussianDistribution=None, VideoTokenizerABC=None)
    cuda, to = torch.cuda, torch.Tensor.to
    cuda.current_device, cuda.get_device_capability = (lambda: "cpu"), (lambda *_: (8, 0))
    cuda.synchronize = cuda.empty_cache = lambda *_: None
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.Tensor.to = lambda self, *given, **named: to(self, *map(on_cpu, given), **named)
    torch.distributed.get_rank, torch.distributed.barrier = (lambda *_, **__: 1), (lambda *_, **__: None)
    pdb.set_trace = trap


def on_cpu(given):
    return "cpu" if isinstance(given, str) and given.startswith("cuda") else given
