"""Ours against the official SkyReels-V2 and FlowCache code on settings drawn at random, with random weights, on a CPU.

    python -m tests.official_skyreels --skyreels CHECKOUT --flowcache CHECKOUT/FlowCache4SkyReels-V2 --count 300

The checkouts are those of SkyworkAI/SkyReels-V2 and of FlowCache; none of their code is here, and nothing of theirs
runs in this process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.official_magi.draw import write
from tests.official_skyreels.draw import draw
from tests.parity.skyreels_runs import TOLERANCE, policy_of
from tests.parity.skyreels_videos import rendered, request_of, transformer_of

NOTHING = "stack expects a non-empty TensorList"  # is denoised: the picture is the whole video


def main() -> int:
    options = parsed()
    torch.set_num_threads(1)
    found: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for kind, checkout in (("skyreels", options.skyreels), ("flowcache", options.flowcache)):
            if checkout is None:
                continue
            drawn, ran = Path(folder, kind), Path(folder, f"{kind}-official")
            for seed in range(options.first, options.first + options.count):
                write(drawn, *draw(seed, kind))
            official(checkout, drawn, ran)
            for file in sorted(drawn.glob("*.json")):
                said, reused = judged(file, ran)
                found[kind, said.split(":")[0]] += 1
                found[kind, "with reused steps"] += reused
                if said != "equal":
                    print(file.stem, said, flush=True)
    for (kind, said), count in sorted(found.items()):
        print(f"{count:6} of {kind} {said}")
    return int(any(said in ("not equal", "failed") for _, said in found))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skyreels", type=Path)
    parser.add_argument("--flowcache", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    return parser.parse_args()


def official(checkout: Path, drawn: Path, ran: Path) -> None:
    """Run the official code on all that is drawn, in a process of its own."""
    ran.mkdir()
    search = os.pathsep.join(map(str, (Path.cwd(), checkout)))
    command = [sys.executable, "-m", "tests.official_skyreels.run", drawn, ran]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}, check=True)


def judged(file: Path, ran: Path) -> tuple[str, bool]:
    """What became of one setting, and whether steps of it were reused."""
    case, facts = json.loads(file.read_text()), json.loads((ran / file.name).read_text())
    known = not_followed(case)
    if NOTHING in (facts["error"] or ""):
        return "beyond the official code", False
    if facts["error"]:
        return f"{'not followed: ' + known if known else 'failed'}: {facts['error']}", False
    data, expected = load_file(file.with_suffix(".safetensors")), load_file(ran / f"{file.stem}.safetensors")
    weights = {name[2:]: x for name, x in data.items() if name.startswith("w.")}
    settings = case["settings"]
    model = transformer_of(case["sizes"], settings["num_heads"], settings["inject_sample_info"], weights)
    request, seen = request_of(settings, case["start"], case["seed"]), []
    windows = list(rendered(model, data, request, policy_of(run_of(case), settings), seen))
    reused = any(not visit.decision.compute for _, visit in seen if visit.step >= 0)
    if len(windows) != len(expected):
        return f"not equal: {len(windows)} windows for {len(expected)}, {settings}", reused
    error = 0.0
    for number, ours in enumerate(windows):
        theirs = expected[f"x0_seg{number}"][:, -ours.shape[1] :]
        error = max(error, ((ours - theirs).abs().max() / theirs.abs().max()).item())
    if error <= TOLERANCE:
        return "equal", reused
    told = {key: case[key] for key in ("settings", "start", "causal_attention", "tea", "args")}
    return f"not followed: {known}, {error:.1e}" if known else f"not equal: {error:.1e} {told}", reused


def run_of(case: dict[str, Any]) -> dict[str, Any]:
    """As golden runs say it."""
    run = {key: case[key] for key in ("name", "kind", "causal_attention", "tea", "args")}
    if run["tea"]:
        run["tea"] = {key: value for key, value in run["tea"].items() if key != "num_steps"}
    return run


def not_followed(case: dict[str, Any]) -> str | None:
    """Why ours is another one on purpose (docs/models.md)."""
    settings, picture = case["settings"], case["start"] == "image"
    if picture and settings["causal_block_size"] > 1:
        return "a picture in a chunk"
    if case["tea"] and (settings["ar_step"] > settings["N"] or (picture and settings["ar_step"])):
        return "TeaCache's counter in rows that it miscounts"
    return None


if __name__ == "__main__":
    sys.exit(main())
