"""Attention over a part of the keys, and how such parts become one softmax (arXiv 2310.01889)."""

from torch import Tensor

from flowcache.models.log_sum_exp import kernel


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


def merge(outs: Tensor, totals: Tensor) -> Tensor:
    """Partial results [parts, ..., D] with their log-sum-exp [parts, ...] as one softmax over all keys; fp32."""
    return (outs.float() * totals.float().softmax(0)[..., None]).sum(0)
