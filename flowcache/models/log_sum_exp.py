"""Attention that also tells the log-sum-exp of its logits: what parts of a softmax are merged by, and keys scored.

torch has no public one on CPUs and for every precision on GPUs. The operators below are those that
`scaled_dot_product_attention` itself calls, as torch's own context parallelism does.
"""

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

LOGITS_AT_ONCE = 2**22  # numbers that exist at a time where no kernel fits
SHIFT_PARTS, SHIFT_DIMS = 3, 8  # numbers that a shift is split into, and channels that it takes: kernels want eights


def kernel(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Attention and log-sum-exp [B, heads, T] on [B, heads, tokens, D]: the best operator for device and dtype.

    scale: of the logits; None: 1 / sqrt(D).
    """
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)
    if q.device.type == "cuda":
        params = SDPAParams(q, k, v, None, 0.0, False, False)
        if q.shape[-1] % 8 == 0 and can_use_flash_attention(params):
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[:2]
        if can_use_efficient_attention(params):
            out, total = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)[:2]
            return out, total.narrow(2, 0, q.shape[2])  # the kernel pads it
    return plain(q, k, v, scale)


def plain(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """The same by matrix products in fp32, some queries at a time."""
    keys, values = k.float(), v.float()
    outs, totals = [], []
    for some in q.split(max(LOGITS_AT_ONCE // (k.shape[0] * k.shape[1] * k.shape[2]), 1), dim=2):
        logits = some.float() @ keys.mT * (scale or q.shape[-1] ** -0.5)
        total = logits.logsumexp(-1, keepdim=True)
        outs.append(((logits - total).exp() @ values).to(q.dtype))
        totals.append(total.squeeze(-1))
    return torch.cat(outs, dim=2), torch.cat(totals, dim=2)


def shared_out(q: Tensor, totals: Tensor, k: Tensor) -> Tensor:
    """How much attention each key gets of all queries: sums of softmax weights [heads, L], fp32 or wider.

    q [heads, T, D], k [heads, L, D]; totals: the queries' log-sum-exp [heads, T] over all keys, of which these may be a
    part. Attention the other way round: keys ask, queries answer, each shifted by its total, which lies in further
    channels. Nothing of [T, L] exists. In bfloat16 a shift takes three of them to be exact to 1e-5.
    """
    scale = q.shape[-1] ** -0.5
    left, shift = -totals / scale, torch.zeros(*q.shape[:-1], SHIFT_DIMS, dtype=q.dtype, device=q.device)
    for part in range(SHIFT_PARTS):
        shift[..., part] = left
        left = left - shift[..., part]
    taken = torch.zeros(*k.shape[:-1], SHIFT_DIMS, dtype=k.dtype, device=k.device)
    taken[..., :SHIFT_PARTS] = 1
    queries, keys = torch.cat([q, shift], dim=-1)[None], torch.cat([k, taken], dim=-1)[None]
    return kernel(keys, queries, queries, scale)[1][0].exp()
