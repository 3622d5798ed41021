"""Files of weights, good and bad, as people have them; each bad one with what is said of it."""

import gzip
import io
import json
import pickle
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save

STATE = {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(2, 2)}
LORA = {"blocks.0.q.lora_A.weight": torch.ones(1, 2), "blocks.0.q.lora_B.weight": torch.ones(2, 1)}
KOHYA = {f"lora_unet_blocks_0_q.{name}": torch.ones(1, 1) for name in ("lora_down.weight", "lora_up.weight", "alpha")}
PATCHES = {f"diffusion_model.blocks.0.self_attn.q.{name}": torch.ones(1, 1)
           for name in ("lora_down.weight", "lora_up.weight", "diff_b")} | {
           f"diffusion_model.blocks.0.{name}": torch.ones(1) for name in ("norm3.diff", "norm3.diff_b")}  # fmt: skip
WHOLE = {"model.diffusion_model.norm.weight": torch.ones(3), "first_stage_model.conv.weight": torch.ones(3)}


def saved(what: object, new: bool = True) -> bytes:
    """By torch.save, as now or as before PyTorch 1.6."""
    stream = io.BytesIO()
    torch.save(what, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


def program() -> bytes:
    """A zip archive with what makes one of torch.jit.save of it."""
    stream = io.BytesIO(saved(STATE))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    return stream.getvalue()


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return stream.getvalue()


def with_header(length: int) -> bytes:
    """A sound safetensors file of one tensor, its header filled up with spaces to a length, as writers do."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(length)
    return len(header).to_bytes(8, "little") + header + bytes(8)


@dataclass(frozen=True)
class Bad:
    """`file`: a name that says safetensors or .pth; `said`: the content in words; `says`: part of the message."""

    title: str
    file: str
    content: bytes
    said: str
    says: str


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 9988\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
GGUF = b"GGUF\3\0\0\0" + bytes(8) + b"\x15\0\0\0\0\0\0\0"
BOTH = [
    ("Git LFS pointer", POINTER, "(a Git LFS pointer)", "is a Git LFS pointer .* run git lfs pull"),
    ("HTML page", PAGE, "(a page to sign in at)", "is an HTML page: a download that failed or needs a login"),
    ("Server's answer", b'{"error": "Entry not found"}', '{"error": "Entry not found"}', "is text that begins with"),
    ("GGUF", GGUF, "(the start of a GGUF file)", "is a GGUF file .* not supported; take the model's safetensors"),
    ("Compressed file", gzip.compress(b"x" * 99, mtime=0), "(gzip)", "is compressed .gzip.; unpack it first"),
    ("Shard of MAGI-1 as zstd", b"\x28\xb5\x2f\xfd" + bytes(9), "(the start of a .zst)", "is compressed .zstd."),
    ("Empty file", b"", "(0 bytes)", "is empty: a download that failed"),
    ("Zeros", bytes(5000), "(5,000 zeros)", "begins with nothing but zeros: a download that did not finish"),
    ("Noise", b"\0\xff\xfe" * 99, "(bytes of no known format)", "is of no known format"),
    ("Plain pickle", pickle.dumps(STATE), "(pickle.dump)", "is a pickle that torch.save did not write.* was not run"),
    ("Archive of arrays", arrays(), "(an .npz)", "is a zip archive"),
]
SOUND = save(STATE)
BAD = [
    *(Bad(f"{title} named {file[file.index('.') :]}", file, content, said, says)
      for title, content, said, says in BOTH for file in ("model.safetensors", "vae.pth")),
    Bad("Safetensors cut in the header", "model.safetensors", with_header(400)[:200], "(200 bytes of 416)",
        "cut short: 192 of the 400 bytes of its header are there"),
    Bad("Safetensors cut in the weights", "model.safetensors", with_header(400)[:-1], "(415 bytes of 416)",
        "is cut short: its header says 416 bytes, the file has 415"),
    Bad("Pickle named safetensors", "model.safetensors", saved(STATE), "(torch.save)", "zip archive.* can hold code"),
    Bad("Old pickle named safetensors", "model.safetensors", saved(STATE, new=False),
        "(torch.save before PyTorch 1.6)", "is a pickle .torch.save before PyTorch 1.6., which can hold code"),
    Bad("LoRA", "model.safetensors", save(LORA), "(lora_A and lora_B)", "is a LoRA .* alone, no checkpoint"),
    Bad("LoRA of another writer", "model.safetensors", save(KOHYA), "(lora_down, lora_up and alpha)", "is a LoRA"),
    Bad("LoRA with patches of norms, as for Wan", "model.safetensors", save(PATCHES),
        "(lora_down, lora_up, diff, diff_b)", "is a LoRA"),
    Bad("All parts in one file", "model.safetensors", save(WHOLE), "(model.diffusion_model.*, first_stage_model.*)",
        "is a single-file checkpoint .*'model.diffusion_model.'"),
    Bad("Safetensors named .pth", "vae.pth", SOUND, "(safetensors)", "is a safetensors file; accepted: what torch"),
    Bad(".pth cut short", "vae.pth", saved(STATE)[:300], "(300 bytes of torch.save)", "cut short at 300 bytes"),
    Bad("Old .pth cut short", "vae.pth", saved(STATE, new=False)[:150], "(150 bytes of torch.save before PyTorch 1.6)",
        "is a pickle .torch.save. that is cut short"),
    Bad("Code in a .pth", "vae.pth", saved({"a": print}), "(torch.save of a function)", "it was not run .'print'."),
    Bad("Code in an old .pth", "vae.pth", saved({"a": print}, new=False), "(the same before PyTorch 1.6)",
        "it was not run .'print'."),
    Bad("TorchScript", "vae.pth", program(), "(torch.jit.save)", "is a TorchScript program, which is not run"),
    Bad("Training checkpoint", "vae.pth", saved({"epoch": 3, "model": STATE}), "(epoch, and tensors under model)",
        "is a training checkpoint, with the tensors under 'model'"),
    Bad("Numbers for names", "vae.pth", saved({1: torch.ones(1)}), "(tensors by number)", "is no state dict"),
    Bad("LoRA named .pth", "vae.pth", saved(LORA), "(lora_A and lora_B)", "is a LoRA"),
]  # fmt: skip
