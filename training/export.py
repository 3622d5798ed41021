"""Writes a trained run as a checkpoint folder: python -m training.export --run runs/tiny --codec runs/codec --to FOLDER

The averaged weights are stored in fp16, in a published layout of the family. Reuse presets are
measured afterwards: python -m training.calibrate --model FOLDER.
"""

import argparse
import json
import shutil
from pathlib import Path

from training.sample import load_average
from training.text import write_json


def export(run: Path, codec: Path, to: Path) -> None:
    """The folder that `flowcache.families.registry.find` takes; its card and reuse presets, where there, stay."""
    model, tokenizer, family, state = load_average(run)
    old = json.loads((to / "flowcache.json").read_text()) if (to / "flowcache.json").exists() else {}
    write_json(to / "flowcache.json", family.spec | {"reuse": old.get("reuse", {})})
    family.write(model, tokenizer, to)
    shutil.copytree(codec, to / "vae", dirs_exist_ok=True)
    for file in to.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"step {state['step']}, {state['spent'] / 60:.0f} minutes, loss {state['loss']:.4f} -> {to}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("run", "codec", "to"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    export(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
