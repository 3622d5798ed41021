"""Attention over a part of the keys, and how such parts become one softmax (arXiv 2310.01889).

torch has no public attention that returns the log-sum-exp on CPUs and for every precision on GPUs. The operators below
are those that `scaled_dot_product_attention` itself calls, as torch's own context parallelism does.
"""

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

LOGITS_AT_ONCE = 2**22  # numbers that exist at a time where no kernel fits


def partial(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention [B, T, heads, D] in q's dtype and its log-sum-exp [B, T, heads], fp32 or wider.

    q [B, T, heads, D]; k and v [B, any, kv_heads, D] with their last dimension contiguous. Query heads that share a
    K/V head are laid out as further queries of it, so that keys are never repeated.
    """
    kv_heads, tokens = k.shape[2], q.shape[1]
    folded = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B, kv_heads, sharing * T, D]
    out, total = kernel(folded.contiguous(), k.transpose(1, 2), v.transpose(1, 2))
    out = out.unflatten(2, (-1, tokens)).permute(0, 3, 1, 2, 4).flatten(2, 3)
    return out, total.unflatten(2, (-1, tokens)).permute(0, 3, 1, 2).flatten(2)


def kernel(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and log-sum-exp [B, heads, T] on [B, heads, tokens, D]: the best operator for device and dtype."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    if q.device.type == "cuda":
        params = SDPAParams(q, k, v, None, 0.0, False, False)
        if q.shape[-1] % 8 == 0 and can_use_flash_attention(params):
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]
        if can_use_efficient_attention(params):
            out, total = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
            return out, total.narrow(2, 0, q.shape[2])  # the kernel pads it
    return plain(q, k, v)


def plain(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The same by matrix products in fp32, some queries at a time."""
    keys, values = k.float(), v.float()
    outs, totals = [], []
    for some in q.split(max(LOGITS_AT_ONCE // (k.shape[0] * k.shape[1] * k.shape[2]), 1), dim=2):
        logits = some.float() @ keys.mT / q.shape[-1] ** 0.5
        total = logits.logsumexp(-1, keepdim=True)
        outs.append(((logits - total).exp() @ values).to(q.dtype))
        totals.append(total.squeeze(-1))
    return torch.cat(outs, dim=2), torch.cat(totals, dim=2)


def merge(outs: Tensor, totals: Tensor) -> Tensor:
    """Partial results [parts, ..., D] with their log-sum-exp [parts, ...] as one softmax over all keys; fp32."""
    return (outs.float() * totals.float().softmax(0)[..., None]).sum(0)
