"""Writes a trained run as a checkpoint folder: python -m training.export --run runs/tiny --codec runs/codec --to FOLDER

The averaged weights are stored in fp16, in a published layout of the family. Reuse presets are
measured afterwards: python -m training.calibrate --model FOLDER.
"""

import argparse
import json
import shutil
from collections.abc import Collection
from pathlib import Path

from flowcache.bench.shapes import World, vocabulary
from training.sample import load_average
from training.text import write_json


def export(run: Path, codec: Path, to: Path, without: Collection[str] = ()) -> None:
    """The folder that `flowcache.families.registry.find` takes; its card and reuse presets, where there, stay.

    without: kinds and motions of the plan that came out wrong, and so are none of the model's vocabulary.
    """
    trained = load_average(run)
    old = json.loads((to / "flowcache.json").read_text()) if (to / "flowcache.json").exists() else {}
    shown = trained.plan.world
    kinds, motions = (tuple(name for name in names if name not in without) for names in (shown.kinds, shown.motions))
    words = {"vocabulary": vocabulary(World(kinds, motions))}
    write_json(to / "flowcache.json", trained.family.spec | {"reuse": old.get("reuse", {})} | words)
    trained.family.write(trained.model, trained.tokenizer, to)
    shutil.copytree(codec, to / "vae", dirs_exist_ok=True)
    for file in to.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"step {trained.step}, {trained.minutes:.0f} minutes, seen {trained.seen} -> {to}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run, or one of its step-*.pt")
    for name in ("codec", "to"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--without", nargs="+", default=(), help="kinds and motions that it doesn't draw")
    export(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
