"""What choosing tokens costs by history length: ours against the form that makes the L x L matrix of cosines.

python -m benchmarks.compress scores random keys of 5, 20 and 80 chunks (one layer, the queries of one chunk) and
prints the extra memory at its peak and the time, both from one run.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.memory import extra_memory, seconds
from benchmarks.statistics import markdown
from flowcache.cache.kv_select import Compression, top


def all_pairs(queries: Tensor, keys: Tensor, budget: int) -> Tensor:
    """The published form: every query's logits at once, and the cosines of all pairs of keys."""
    unit = F.normalize(keys.float(), dim=-1).transpose(0, 1)
    cosines = unit @ unit.transpose(1, 2)
    cosines.diagonal(dim1=1, dim2=2).zero_()
    redundancy = cosines.mean(-1).softmax(-1)
    logits = torch.einsum("qhd,khd->hqk", queries.float(), keys.float()) / keys.shape[-1] ** 0.5
    attention = F.max_pool1d(logits.softmax(-1).mean(1), 7, stride=1, padding=3)
    return top(0.07 * attention - 0.93 * redundancy, budget)


FORMS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {"ours": Compression().select, "L x L": all_pairs}


def measure(chunks: int, tokens: int, heads: int) -> list[str]:
    """One row of the table: a history of so many chunks is cut down to one."""
    queries, keys = torch.randn(tokens, heads, 64), torch.randn(chunks * tokens, heads, 64)
    calls = {name: partial(form, queries, keys, tokens) for name, form in FORMS.items()}
    memory, square = (extra_memory(call) for call in calls.values())
    took, took_square = (seconds(call, repeats=3) for call in calls.values())
    chosen, published = (set(call()[:, 0].tolist()) for call in calls.values())
    figures = [f"{memory / 2**20:.2f}", f"{memory / len(keys):,.0f}", f"{square / 2**20:.2f}", f"{memory / square:.3f}"]
    times = [f"{took * 1e3:.1f}", f"{took_square * 1e3:.1f}", f"{took / took_square:.3f}"]
    return [str(chunks), f"{len(keys):,}", *figures, *times, f"{len(chosen & published)}/{tokens}"]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--tokens", type=int, default=64, help="of a chunk")
    parser.add_argument("--heads", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measure(chunks, arguments.tokens, arguments.heads) for chunks in arguments.chunks]
    tokens = arguments.tokens
    print(f"{arguments.heads} heads of 64, fp32, {tokens} queries, down to {tokens} tokens, 1 thread\n")
    head = ["chunks", "tokens L", "ours, MiB", "bytes a token", "L x L, MiB", "ratio", "ours, ms", "L x L, ms", "ratio",
            "same choice, head 0"]  # fmt: skip
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
