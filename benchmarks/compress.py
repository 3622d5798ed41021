"""What choosing tokens costs by history length: ours against the form that makes the L x L matrix of cosines.

python -m benchmarks.compress scores random keys of 5, 20 and 80 chunks (one layer, the queries of one chunk) and
prints the extra memory at its peak and the time, both from one run. With --gpu: what a cut is predicted to take on one
H100 (assumptions: benchmarks.roofline), all layers and branches, of all queries and of those that are asked.
With --bundled: how many of the tokens that all queries choose fewer of them choose too, so many apart (2.618: as large
chunks are asked).
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import roofline
from benchmarks.memory import extra_memory, seconds
from benchmarks.pretend import DEVICE, pretend_gpu
from flowcache.bench.statistics import markdown
from flowcache.cache import kv_select
from flowcache.cache.kv_select import GOLDEN, Compression, Local, spread, top
from flowcache.families.registry import load_model
from flowcache.inputs.segments import plan
from flowcache.models import log_sum_exp
from flowcache.records import RenderRequest, Shot
from flowcache.worker.renderer import SegmentRenderer

FEWER = 2 + GOLDEN, 3, 7  # one in so many
PROMPTS = "a red circle moving right on a blue background", "a white square growing on a green background"


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


def predicted(name: str) -> list[str]:
    """Five chunks' keys are cut down to four; a chunk is denoised in the model's usual steps."""
    case = roofline.CASES[name]
    config, tokens = case.config, case.frames * (case.rows // 2) * (case.columns // 2)
    branches, forwards = (1, 16) if case.magi else (2, 30 * 2)  # distilled MAGI-1: the fewest that it takes
    denoising = roofline.forward(*roofline.simulate(case, roofline.COMPUTED[case.magi])).total * forwards / 1e3
    cells = []
    for every in (10**9, kv_select.EVERY_QUERY):
        with pretend_gpu() as tally, torch.inference_mode(), mock.patch.object(
            kv_select, "EVERY_QUERY", every
        ), mock.patch.object(log_sum_exp, "can_use_flash_attention", lambda _: True):  # fmt: skip
            q = torch.empty(tokens, config.heads, config.head_dim, dtype=torch.bfloat16, device=DEVICE)
            k = torch.empty(5 * tokens, config.kv_heads, config.head_dim, dtype=torch.bfloat16, device=DEVICE)
            tally.clear()
            Compression().select(q, k, 4 * tokens)
        took = roofline.seconds(tally) * config.layers * branches
        cells += [f"{took:.2f}", f"{took / denoising:.1%}"]
    return [case.name, f"{denoising:.1f}", *cells]


def agreement(name: str, mix: float, prompts: int) -> list[str]:
    """Of the tokens that all queries choose, those that fewer choose."""
    model, same, all_of_them = load_model(name), Counter(), 0
    spec = model.spec

    def select(compression: Compression, queries: Tensor, keys: Tensor, budget: int, *places: Local) -> Tensor:
        nonlocal all_of_them
        chosen = choose(compression, queries, keys, budget, *places)
        all_of_them += chosen.numel()
        for step in FEWER:
            fewer = choose(compression, spread(queries, step), keys, budget, *places)
            pairs = zip(chosen.T.tolist(), fewer.T.tolist(), strict=True)
            same[step] += sum(len(set(ours) & set(theirs)) for ours, theirs in pairs)
        return chosen

    choose = Compression.select
    kv = {"keep": "compressed", "chunks": 1, "by": "token", "mix": mix}
    with mock.patch.object(Compression, "select", select):
        for seed, prompt in enumerate(PROMPTS[:prompts]):
            shot = Shot(prompt, spec.video_frames(spec.window))
            request = RenderRequest(
                id="window", shots=(shot,), width=spec.width, height=spec.height, fps=spec.fps, seed=seed,
                guidance=spec.guidance, steps=spec.steps, model=name, policy={"name": "flowcache", "kv": kv},
            )  # fmt: skip
            list(SegmentRenderer(model, request, plan(request, spec)[0], conditioning=None).finished())
    print(name, mix, dict(same), "of", all_of_them, file=sys.stderr, flush=True)
    return [name, f"{mix}", f"{all_of_them:,}", *(f"{same[step] / all_of_them:.1%}" for step in FEWER)]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5, 20, 80])
    parser.add_argument("--tokens", type=int, default=64, help="of a chunk")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--bundled", action="store_true")
    parser.add_argument("--prompts", type=int, choices=(1, 2), default=2, help="with --bundled: windows of each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.gpu:
        forms = [f"{form}, {unit}" for form in ("all queries", "those asked") for unit in ("s", "of it")]
        print(roofline.ASSUMED, "\n")
        return print(markdown(["model", "a chunk, s", *forms], [predicted(name) for name in ("1.3B", "14B", "4.5B")]))
    if arguments.bundled:
        many = arguments.prompts
        rows = [agreement(name, mix, many) for name in ("tiny-skyreels", "tiny-magi") for mix in (0.07, 1.0)]
        return print(markdown(["model", "mix", "tokens kept", *(f"one in {step:.4g}" for step in FEWER)], rows))
    torch.manual_seed(0)
    rows = [measure(chunks, arguments.tokens, arguments.heads) for chunks in arguments.chunks]
    tokens = arguments.tokens
    print(f"{arguments.heads} heads of 64, fp32, {tokens} queries, down to {tokens} tokens, 1 thread\n")
    head = ["chunks", "tokens L", "ours, MiB", "bytes a token", "L x L, MiB", "ratio", "ours, ms", "L x L, ms", "ratio",
            "same choice, head 0"]  # fmt: skip
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
