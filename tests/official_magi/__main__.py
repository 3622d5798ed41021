"""Ours against the official MAGI-1 and FlowCache code on settings drawn at random, with random weights, on a CPU.

    python -m tests.official_magi --magi CHECKOUT --flowcache CHECKOUT/FlowCache4MAGI-1 --count 300 --libraries FOLDER

The checkouts are those of SandAI-org/MAGI-1 and of FlowCache; none of their code is here. FOLDER holds einops, which
they need and we do not (`pip install --no-deps --target FOLDER einops`). Nothing of theirs runs in this process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file

from flowcache.sampling.loop import denoise
from tests.official_magi.draw import draw, model_of, write
from tests.parity.magi_runs import OFF, Run

CLOSE = 1e-4  # of the largest value
# The official scores, where each query head has K/V of its own and there are not as many tokens as heads by chance.
OWN_KEYS = "Expected size for first two dimensions of batch2"


def main() -> int:
    options = parsed()
    torch.set_num_threads(1)
    found = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for kind, checkout in (("magi", options.magi), ("flowcache", options.flowcache)):
            if checkout is None:
                continue
            drawn, ran = Path(folder, kind), Path(folder, f"{kind}-official")
            for seed in range(options.first, options.first + options.count):
                write(drawn, *draw(seed, kind))
            official(checkout, options.libraries, drawn, ran)
            for file in sorted(drawn.glob("*.json")):
                said = judged(kind, file, ran)
                found[kind, said.split(":")[0]] += 1
                if said != "equal":
                    print(file.stem, said)
    for (kind, said), count in sorted(found.items()):
        print(f"{count:6} of {kind} {said}")
    return int(any(said in ("not equal", "failed") for _, said in found))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--magi", type=Path)
    parser.add_argument("--flowcache", type=Path)
    parser.add_argument("--libraries", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    return parser.parse_args()


def official(checkout: Path, libraries: Path | None, drawn: Path, ran: Path) -> None:
    """Run the official code on all that is drawn, in a process of its own."""
    ran.mkdir()
    search = os.pathsep.join(map(str, filter(None, (Path.cwd(), checkout, libraries))))
    command = [sys.executable, "-m", "tests.official_magi.run", drawn, ran]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}, check=True)


def judged(kind: str, file: Path, ran: Path) -> str:
    """What became of one setting."""
    case, facts = json.loads(file.read_text()), json.loads((ran / file.name).read_text())
    if facts["error"]:
        return "beyond the official code" if OWN_KEYS in facts["error"] else f"failed: {facts['error']}"
    data, expected = load_file(file.with_suffix(".safetensors")), load_file(ran / f"{file.stem}.safetensors")["final"]
    weights = {name[2:]: data.pop(name) for name in [*data] if name.startswith("w.")}
    run = Run.of(case, data)
    model = model_of(case["config"]["model_config"])
    model.load_state_dict(weights)
    policy, texts = OFF if kind == "magi" else run.policy(), run.texts(model.null_caption)
    chunks = list(denoise(model.eval(), data["x0"][0], texts, run.settings, policy, run.prefix))
    latents, shown = torch.cat([chunk.latents for chunk in chunks], dim=1), expected[0][:, run.held :]
    error = ((latents[:, latents.shape[1] - shown.shape[1] :] - shown).abs().max() / shown.abs().max()).item()
    if error <= CLOSE:
        return "equal"
    known = not_followed(case) if kind == "flowcache" else None
    return (
        f"not followed: {known}, {error:.1e}" if known else f"not equal: {error:.1e} {case['config']['runtime_config']}"
    )


def not_followed(case: dict) -> str | None:
    """Why ours is another one on purpose (docs/decisions.md)."""
    told = case["compression"]
    if told is None:
        return None
    sizes = case["config"]["model_config"]
    if sizes["num_attention_heads"] == sizes["num_query_groups"]:
        return "scores where each query head has K/V of its own"
    if not case["flowcache"]["discard_nearly_clean_chunk"]:
        return "the near-clean copy kept with compressed K/V"
    if case["config"]["runtime_config"]["noise2clean_kvrange"]:
        return "ranges of the whole history in a compressed one"
    return "equal scores" if told["mix_lambda"] == 1 else None


if __name__ == "__main__":
    sys.exit(main())
