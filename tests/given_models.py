"""What people give as a model that is none, or another one: each as it is laid out, with what is said of it."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError, Problem
from flowcache.families.check import check
from flowcache.families.registry import folder_of
from tests.published import DIFFUSERS, OFFICIAL, Parts, tiny_parts, write_diffusers
from tests.published_magi import write_magi
from tests.weights_files import GGUF, LORA, SOUND, WHOLE

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Given:
    """`make`: lays it out in a folder, as `name`; `said`: that in words."""

    title: str
    name: str
    said: str
    says: str
    make: Make = lambda folder: None

    def problems(self) -> list[Problem]:
        """Of `flowcache models check NAME`, the current directory being an empty one."""
        self.make(Path())
        try:
            return check(folder_of(self.name), self.name).problems
        except InputError as error:
            return error.problems


@cache
def parts() -> Parts:
    return tiny_parts()


def pipeline(name: str) -> Make:
    """A whole checkpoint of SkyReels-V2-DF, but for its class."""

    def make(folder: Path) -> None:
        write_diffusers(parts(), folder / "model")
        (folder / "model" / "model_index.json").write_text(json.dumps({"_class_name": name}))

    return make


def transformer(folder: Path) -> None:
    write_diffusers(parts(), folder / "model")
    (folder / "model" / "model_index.json").unlink()
    config = DIFFUSERS | {"_class_name": "WanTransformer3DModel"}
    (folder / "model" / "transformer" / "config.json").write_text(json.dumps(config))


def in_8_bits(change: Callable[[dict], dict], said: dict | None = None) -> Make:
    def make(folder: Path) -> None:
        place = write_diffusers(parts(), folder / "model") / "transformer"
        file = place / "diffusion_pytorch_model.safetensors"
        save_file(change(load_file(file)), file)
        (place / "config.json").write_text(json.dumps(DIFFUSERS | (said or {})))

    return make


def integers(state: dict) -> dict:
    return state | {"proj_out.weight": state["proj_out.weight"].to(torch.int8)}


def in_blocks(state: dict) -> dict:
    name = "blocks.0.attn1.to_q.weight"
    return state | {name: state[name].to(torch.float8_e4m3fn), f"{name}_scale": torch.ones(2, 2)}


def of(name: str, content: bytes) -> Make:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return make


def tensors(name: str, state: dict) -> Make:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        save_file(state, folder / name)

    return make


def clip(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(OFFICIAL | {"model_type": "i2v", "in_dim": 36}))
    (folder / "model" / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth").write_bytes(b"")


def cached(folder: Path) -> None:
    root = folder / "models--Skywork--SkyReels-V2-DF-1.3B-540P"
    (root / "snapshots" / "4f1c").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("beef")


def stacked(folder: Path) -> None:
    write_magi(folder)
    for file in (folder / "downloads" / "tiny" / "inference_weight.distill").iterdir():
        file.unlink()
    name = "videodit_blocks.layers.self_attention.linear_qkv.weight"
    save_file({name: torch.ones(2, 160, 64)}, file.with_name("model.safetensors"))


GIVEN = [
    Given("Name on the Hugging Face Hub", "Skywork/SkyReels-V2-DF-1.3B-540P", "(no such path)", "run hf download Sky"),
    Given("Missing path", "/models/SkyReels", "(no such path)", "does not exist: give tiny-magi"),
    Given("URL", "s3://bucket/model", "(a URL)", "is a URL; accepted"),
    Given("Path with ~", "~/model", "(no such path)", "'~/model' does not exist: give"),
    Given("Empty folder", "model", "(a folder without files)", "is an empty folder", lambda at: (at / "model").mkdir()),
    Given("GGUF file", "model.gguf", "(the start of a GGUF file)", "is a GGUF file", of("model.gguf", GGUF)),
    Given("Folder with a GGUF file", "model", "(a folder with model.gguf)", "is a GGUF file",
          of("model/model.gguf", GGUF)),
    Given("LoRA", "lora.safetensors", "(lora_A and lora_B)", "is a LoRA", tensors("lora.safetensors", LORA)),
    Given("Folder with a LoRA", "model", "(a folder with pytorch_lora_weights.safetensors)", "holds a LoRA",
          tensors("model/pytorch_lora_weights.safetensors", LORA)),
    Given("All parts in one file", "all.safetensors", "(model.diffusion_model.*, first_stage_model.*)",
          "is a single-file checkpoint", tensors("all.safetensors", WHOLE)),
    Given("Weights alone", "model", "(a folder with model.safetensors)", "and no config.json",
          of("model/model.safetensors", SOUND)),
    Given("Cache that is not complete", "models--Skywork--SkyReels-V2-DF-1.3B-540P", "(refs/main is not there)",
          "the download did not finish", cached),
    *(Given(f"Pipeline of class {name}", "model", f"(a whole checkpoint, but {name} in model_index.json)",
            f"a pipeline of class {name!r}", pipeline(name))
      for name in ("SkyReelsV2Pipeline", "WanPipeline", "HunyuanVideoPipeline")),
    Given("Transformer of class WanTransformer3DModel", "model", "(a whole checkpoint, but that in its config.json)",
          "a transformer of class 'WanTransformer3DModel'", transformer),
    Given("Image-to-video model", "model", "(a folder with models_clip_*.pth)", "belongs to an image-to-video", clip),
    Given("Weights that a library packed", "model", "(quantization_config with torchao)", "says that torchao packed",
          in_8_bits(dict, {"quantization_config": {"quant_method": "torchao"}})),
    Given("Integers without a scale", "model", "(proj_out.weight in int8)", "has dtype I8", in_8_bits(integers)),
    Given("float8 scaled in blocks", "model", "(weight_scale of [2, 2])", "has weight_scale of", in_8_bits(in_blocks)),
    Given("MAGI-1.1 with stacked blocks", "example/tiny/tiny_config.json", "(layers.self_attention.linear_qkv.weight)",
          "as MAGI-1.1's 24B base", stacked),
]  # fmt: skip


def rows() -> list[list[str]]:
    """Title, what was given, each problem: of all, every one tried out in a folder of its own below the current one."""
    found, home = [], Path.cwd()
    for given in GIVEN:
        with tempfile.TemporaryDirectory(dir=home) as folder:
            os.chdir(folder)
            found.append([given.title, f"{given.name} {given.said}", *_said(given, folder)])
            os.chdir(home)
    return found


def _said(given: Given, folder: str) -> list[str]:
    """MAGI-1's parts are named by whole paths."""
    return [str(problem).replace(f"{folder}/", "") for problem in given.problems()]
