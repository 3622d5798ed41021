"""The official side: `python -m tests.official_skyreels.run DRAWN OUT`, a checkout on PYTHONPATH; see `__main__`."""

import io
import json
import math
import pdb
import sys
import warnings
from argparse import Namespace
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowcache.worker.noise import normal
from tests.official_magi.gpu_stand_ins import attention, module, on_cpu, trap
from tests.parity.skyreels_runs import FLOWCACHE
from tests.parity.skyreels_videos import Codec, Texts

PACKAGE = "skyreels_v2_infer"
BESIDE = ("pipelines.image2video_pipeline", "pipelines.prompt_enhancer", "pipelines.text2video_pipeline")
PARTS = ("modules.clip", "modules.t5", "modules.vae")


class In32:
    """torch as the official transformer sees it: it casts its tokens to bfloat16."""

    bfloat16 = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class Videos:
    """decord's reader, of frames that lie in memory."""

    frames = torch.empty(0)

    def __init__(self, path: str, width: int, height: int):
        assert self.frames.shape[1:3] == (height, width)

    def __len__(self) -> int:
        return len(self.frames)

    def get_batch(self, places: list[int]) -> Tensor:
        return self.frames[places]


class OneByOne:
    """The codec as the official pipeline calls it; keeps what it decodes."""

    def __init__(self, data: dict[str, Tensor]):
        self.codec, self.decoded = Codec(data), []

    def encode(self, videos: Tensor) -> Tensor:
        return torch.stack([self.codec.encode(video) for video in videos])

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(latents[0].clone())
        return torch.stack([self.codec.stream()(one) for one in latents])


class Encoder(Texts):
    def to(self, device: str) -> "Encoder":
        return self


class Noise:
    """Ours, in place of what the official pipeline draws: of each window, and at each row of its prefix."""

    def __init__(self, case: dict[str, Any]):
        self.seed, self.chunk = case["seed"], case["settings"]["causal_block_size"]
        overlap = (case["settings"]["overlap_history"] + 3) // 4
        self.given = overlap if case["start"] == "video" else 0
        self.window, self.next_chunk, self.row, self.overlap = -1, 0, 0, overlap

    def of_window(self, shape: list[int], **_: object) -> Tensor:
        channels, frames, *size = shape
        self.window, self.row = self.window + 1, 0
        before = self.overlap if self.window else self.given
        count = math.ceil((frames - before) / self.chunk)
        chunks = range(self.next_chunk, self.next_chunk + count)
        self.next_chunk += count
        of_chunk = channels, self.chunk, *size
        drawn = [normal(of_chunk, "chunk", self.seed, chunk) for chunk in chunks]
        return torch.cat([torch.zeros(channels, before, *size), *drawn], dim=1)

    def of_prefix(self, like: Tensor) -> Tensor:
        self.row += 1
        return normal(tuple(like.shape), "condition", self.seed, self.window, self.row - 1)


def main(drawn: Path, out: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pretend()
    for file in sorted(drawn.glob("*.json")):
        case, data = json.loads(file.read_text()), load_file(file.with_suffix(".safetensors"))
        error, said = None, io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                windows = rendered(case, data)
            save_file({f"x0_seg{n}": x for n, x in enumerate(windows)}, out / f"{file.stem}.safetensors")
        except Exception as found:  # noqa: BLE001  it is theirs, and is counted
            error = f"{type(found).__name__} {str(found)[:100]}"
        (out / file.name).write_text(json.dumps({"error": error, "skipped": said.getvalue().count(" skip at step ")}))


def pretend() -> None:
    """To be called before anything official is imported: no compilation, no GPU, and not the parts that are given."""
    module("decord", bridge=Namespace(set_bridge=lambda _: None), VideoReader=Videos)
    given = {"modules.clip": "CLIPModel", "modules.t5": "T5EncoderModel", "modules.vae": "WanVAE"}
    for name in PARTS:
        module(f"{PACKAGE}.{name}", **{given[name]: None})
    for name, inside in zip(BESIDE, ("Image2VideoPipeline", "PromptEnhancer", "Text2VideoPipeline"), strict=True):
        module(f"{PACKAGE}.{name}", **{inside: None, "resizecrop": None})
    torch.compile = lambda function=None, **_: function or (lambda it: it)
    to = torch.Tensor.to
    torch.Tensor.to = lambda self, *args, **named: to(self, *map(on_cpu, args), **named)
    pdb.set_trace = trap


def rendered(case: dict[str, Any], data: dict[str, Tensor]) -> list[Tensor]:
    """The latents of each window as they are decoded, [C, F, h, w]."""
    from skyreels_v2_infer import DiffusionForcingPipeline
    from skyreels_v2_infer.pipelines import diffusion_forcing_pipeline as program

    model, codec, noise = transformer(case, data), OneByOne(data), Noise(case)
    program.get_transformer = lambda *_: model
    program.get_vae, program.get_text_encoder = (lambda *_, **__: codec), (lambda *_: Encoder(data))
    told, start = dict(case["settings"]), case["start"]
    if told["addnoise_condition"]:
        torch.randn_like = noise.of_prefix
    pipe = DiffusionForcingPipeline("given", "given", device="cpu", weight_dtype=torch.float32)
    pipe.prepare_latents = noise.of_window
    for name in ("inject_sample_info", "num_heads"):
        del told[name]
    told |= {"num_inference_steps": told.pop("N"), "guidance_scale": told.pop("guidance")}
    told |= {"prompt": "a thing", "negative_prompt": "bad"}
    if case["kind"] == FLOWCACHE:
        args = {"use_kvrange": False, "kvrange": 0, "use_compress": False, "budget_block": 0}
        told["args"] = Namespace(**args | (case["args"] or {}))
    if start == "video":
        Videos.frames = data["in.video"]
        pipe.extend_video(prefix_video_path="given", **told)
    else:
        image = Image.fromarray(data["in.image"][0].numpy()) if start else None
        pipe(image=image, **told)
    return codec.decoded


def transformer(case: dict[str, Any], data: dict[str, Tensor]) -> torch.nn.Module:
    """The official one, with the weights and the reuse of a case."""
    flowcache = case["kind"] == FLOWCACHE
    if flowcache:
        from skyreels_v2_infer.modules import transformer_flowcache as official
    else:
        from skyreels_v2_infer.modules import transformer as official

    official.torch, official.flash_attention = In32(), attention
    official.sdp_kernel = lambda **_: nullcontext()
    model = official.WanModel(**case["sizes"], inject_sample_info=case["settings"]["inject_sample_info"])
    model.load_state_dict({name[2:]: x for name, x in data.items() if name.startswith("w.")})
    if case["causal_attention"]:
        model.set_ar_attention(case["settings"]["causal_block_size"])
    if tea := case["tea"]:
        tea = dict(tea)
        own = tea.pop("coefficients", None)
        if flowcache:
            model.initialize_asynchronous_teacache(**tea, inference_steps=case["settings"]["N"])
        else:
            model.initialize_teacache(**tea)
        model.coefficients = own or model.coefficients
    return model.eval()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
