"""The official side: `python -m tests.official_magi.run DRAWN OUT`, with a checkout on PYTHONPATH; see `__main__`."""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.official_magi.gpu_stand_ins import pretend

VARIABLES = ("PAD_", "NEG_PROMPT", "prev_chunks_scale")  # of the environment, by what they begin with


def main(drawn: Path, out: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pretend()
    for file in sorted(drawn.glob("*.json")):
        case, data = json.loads(file.read_text()), load_file(file.with_suffix(".safetensors"))
        error = None
        try:
            save_file({"final": walked(case, data)}, out / f"{file.stem}.safetensors")
        except Exception as found:  # noqa: BLE001  it is theirs, and is counted
            error = f"{type(found).__name__} {str(found)[:100]}"
        (out / file.name).write_text(json.dumps({"error": error}))


def prepare(case: dict, data: dict) -> None:
    """What the official code reads from its environment, and without a process group."""
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        del os.environ[name]
    os.environ.update(case["env"])
    if "SPECIAL_TOKEN_PATH" not in os.environ:  # read once, while it is imported
        os.environ["SPECIAL_TOKEN_PATH"] = str(Path(tempfile.mkdtemp()) / "special.npz")
        rows = {name.removeprefix("special."): x.numpy() for name, x in data.items() if name.startswith("special.")}
        np.savez(os.environ["SPECIAL_TOKEN_PATH"], **rows)
    import inference.infra.distributed.parallel_state as parallel
    from inference.model.dit import dit_module

    for name, value in {"get_pp_world_size": 1, "get_pp_rank": 0, "get_tp_world_size": 1}.items():
        setattr(parallel, name, lambda *_, value=value, **__: value)
    parallel.is_pipeline_first_stage = parallel.is_pipeline_last_stage = lambda *_, **__: True
    dit_module.range_mod_triton = lambda x, places, gates: x * gates.flatten(0, 1)[places]


def walked(case: dict, data: dict) -> torch.Tensor:
    """The latents in the end, [1, C, F, h, w]."""
    prepare(case, data)
    from inference.common import EngineConfig, MagiConfig, ModelConfig, RuntimeConfig
    from inference.model.dit.dit_model import VideoDiTModel
    from inference.pipeline import video_generate

    video_generate.print_rank_0 = lambda *_: None
    told = case["config"]
    sizes = ModelConfig(**told["model_config"] | {"params_dtype": torch.float32})
    config = MagiConfig(sizes, RuntimeConfig(**told["runtime_config"]), EngineConfig(**told["engine_config"]))
    model = VideoDiTModel(config=config, pre_process=True, post_process=True)
    model.load_state_dict({name[2:]: x for name, x in data.items() if name.startswith("w.")})
    if case.get("flowcache"):
        accelerate(case["flowcache"], case["compression"], model)
    mask = data["caption_mask"] * (not case["empty_prompt"])
    with torch.inference_mode():
        given = video_generate.extract_feature_for_inference(
            model.eval(), data.get("prefix"), data["caption_embs"], mask
        )
        walk = video_generate.SampleTransport(model=model, transport_inputs=[given], device="cpu")
        walk.xs[0] = torch.cat([data["x0"], data["x0"]])
        for _ in walk.walk():
            pass
    return walk.xs[0][:1].clone()


def accelerate(reuse: dict, compression: dict | None, model: torch.nn.Module) -> None:
    from inference.pipeline.flowcache import setup_flowcache
    from inference.pipeline.kvcompress import kv_compressor

    setup_flowcache(**reuse)
    kv_compressor.print = lambda *_: None
    for layer in model.videodit_blocks.layers if compression else ():
        layer.self_attention.kv_cluster = kv_compressor.KVCompressor(**compression)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
