"""What choosing tokens costs by history length: ours against the form that makes the L x L matrix of cosines.

python -m benchmarks.compress scores random keys of 5, 20 and 80 chunks (one layer, the queries of one chunk) and
prints the extra memory at its peak and the time, both from one run.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.statistics import markdown
from flowcache.cache.kv_compress import Compression, top


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


def extra_memory(call: Callable[[], Tensor]) -> int:
    """Most bytes that the call holds at once beyond what was there before, by torch's record of its allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def seconds(call: Callable[[], Tensor], repeats: int = 3) -> float:
    """CPU time, the best of some calls."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--tokens", type=int, default=64, help="of a chunk")
    parser.add_argument("--heads", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for chunks in arguments.chunks:
        length, budget = chunks * arguments.tokens, arguments.tokens
        queries = torch.randn(arguments.tokens, arguments.heads, 64)
        keys = torch.randn(length, arguments.heads, 64)
        found = {name: (extra_memory(lambda f=f: f(queries, keys, budget)), seconds(lambda f=f: f(queries, keys, budget)))
                 for name, f in FORMS.items()}  # fmt: skip
        (memory, took), (memory_square, took_square) = found["ours"], found["L x L"]
        chosen, published = (set(f(queries, keys, budget)[:, 0].tolist()) for f in FORMS.values())
        rows.append([
            str(chunks), f"{length:,}", f"{memory / 2**20:.2f}", f"{memory / length:,.0f}", f"{memory_square / 2**20:.2f}",
            f"{memory / memory_square:.3f}", f"{took * 1e3:.1f}", f"{took_square * 1e3:.1f}",
            f"{took / took_square:.3f}", f"{len(chosen & published)}/{budget}",
        ])  # fmt: skip
    print(
        f"{arguments.heads} heads of 64, fp32, {arguments.tokens} queries, down to {arguments.tokens} tokens, 1 thread\n"
    )
    head = ["chunks", "tokens L", "ours, MiB", "bytes a token", "L x L, MiB", "ratio", "ours, ms", "L x L, ms", "ratio",
            "same choice, head 0"]  # fmt: skip
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
