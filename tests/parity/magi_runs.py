"""What a recorded run of official MAGI-1 or FlowCache was set to, in our terms.

All of it is read from the run's JSON; what it says and nobody here knows is an error, never passed over.
"""

from dataclasses import dataclass, replace

import torch

from flowcache.cache.kv_select import Compression
from flowcache.cache.policy import Policy
from flowcache.cache.reuse import Reuse
from flowcache.cache.step_cache import CacheOf, RepeatIncrement
from flowcache.families.magi.captions import Captions, SpecialTokens
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.config_file import COUNTS, NUMBERS, RULES, SWITCHES
from flowcache.families.magi.published import pipeline
from flowcache.families.magi.sampler import MagiSettings
from flowcache.families.magi.tokens import MARKS
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.sampling.loop import Texts

OFF = Policy("off", kv_update="refresh")
# Environment variables of the official program -> names of special tokens.
PADS = {
    "PAD_STATIC": "static", "PAD_DYNAMIC": "dynamic", "PAD_BORDERNESS": "borderness", "PAD_HQ": "hq",
    "PAD_THREE_D_MODEL": "3d", "PAD_TWO_D_ANIME": "2d", "PAD_DURATION": "duration",
}  # fmt: skip
ON = ("1", "true", "yes", "y", "on", "enabled")  # what the official code takes for "set"
IDLE = {  # has no bearing on what is compared
    "model_config": {"model_name", "params_dtype"},
    "runtime_config": {"seed", "t5_device"},
    "engine_config": {
        "distributed_backend", "distributed_timeout_minutes", "pp_size", "cp_size", "cp_strategy",
        "ulysses_overlap_degree", "kv_offload", "enable_cuda_graph",
    },
}  # fmt: skip
SAID = {"name", "model", "config", "env", "prefix", "empty_prompt", "flowcache", "compression", "error"}
RECORDED = {"static", "steps", "final_chunks", "compress_calls"}
REUSE = {
    "rel_l1_thresh", "warmup_steps", "discard_nearly_clean_chunk", "compress_kv_cache", "total_cache_chunk_nums", "log",
}  # fmt: skip
COMPRESSION = {
    "compress_strategy", "mix_lambda", "query_granularity", "score_weighting_method", "power", "kernel_size",
}  # fmt: skip


def known(given, names, where):
    """`given`, if it says nothing beside `names`."""
    if unknown := sorted(set(given) - set(names)):
        raise ValueError(f"{where} says {', '.join(unknown)}, which the parity tests do not know")
    return given


def config_of(config):
    """The three sections, looked through."""
    known(config, IDLE, "config")
    for section, given in config.items():
        known(given, {*RULES[section], *IDLE[section]}, f"config.{section}")
        faults = [key for key, (_, holds) in RULES[section].items() if given[key] is not None and not holds(given[key])]
        assert faults == [], faults
    return config


@dataclass(frozen=True)
class Run:
    """One run of a golden's JSON, and the tensors beside it."""

    case: dict
    data: dict

    @classmethod
    def of(cls, case, data):
        known(case, SAID | RECORDED, f"run {case['name']}")
        assert case.get("error") is None, "the official run failed"
        known(case.get("env", {}), {*PADS, "NEG_PROMPT", "prev_chunks_scale"}, "env")
        config_of(case["config"])
        return cls(case, data)

    @property
    def name(self):
        return self.case["name"]

    @property
    def env(self):
        return self.case.get("env", {})

    def set(self, variable):
        return self.env.get(variable, "0").lower() in ON

    @property
    def settings(self):
        config = self.case["config"]
        runtime, sampled = config["runtime_config"], pipeline(config)
        steps, strongest = runtime["num_steps"], max(runtime["text_scales"])
        made = MagiSettings(steps, steps // sampled.window, runtime["chunk_width"], runtime["fps"], strongest, sampled)
        scale = self.env.get("prev_chunks_scale")
        return made if scale is None else replace(made, prev_chunks_scale=float(scale))

    @property
    def prefix(self):
        """[C, P, h, w] or None."""
        name = self.case.get("prefix")
        return None if name is None else self.data[name][0]

    @property
    def held(self):
        """Latent frames that are given."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    @property
    def chunks(self):
        """Of the whole video, the given ones too."""
        return self.case["static"]["chunk_num"]

    def captions(self):
        names = [name for pad, name in PADS.items() if self.set(pad)]
        words = self.data["caption_embs"][0][:, self.data["caption_mask"][0].bool()]
        special = None
        if self.env:
            other, logo, caption = (self.data[f"special.{kind}"].half().float() for kind in
                                    ("other_tokens", "logo_token", "caption_token"))  # fmt: skip
            negative = torch.cat([other[[MARKS["borderness"], 0]], logo, caption])
            special = SpecialTokens(other, negative=negative).named(names)
        return Captions(lambda prompt: words, special, self.length, against=self.set("NEG_PROMPT"))

    @property
    def length(self):
        return self.case["config"]["model_config"]["caption_max_length"]

    def texts(self, null):
        """Of every chunk; null: the model's null caption."""
        captions, prompt = self.captions(), "" if self.case.get("empty_prompt") else "a prompt"
        told = [captions.caption(prompt, self.chunks - 1 - chunk) for chunk in range(self.chunks)]
        return Texts(told, captions.negative(null))

    def policy(self, kind=Compression):
        """Of a FlowCache run. kind: of compression, such as one that notes what it kept."""
        given = known(self.case["flowcache"], REUSE, "flowcache")
        told, clean = self.case["compression"], None
        assert given["compress_kv_cache"] == (told is not None)
        if told:
            clean = given["total_cache_chunk_nums"] - self.settings.pipeline.window
        return Policy(
            "paper", Reuse(given["rel_l1_thresh"], given["warmup_steps"], (1.0, 0.0), last_step=False), "stale",
            clean=clean, compression=told and compression_of(told, kind), cache=CacheOf(RepeatIncrement),
            near_clean_guidance=not given["discard_nearly_clean_chunk"], cut="after",
        )  # fmt: skip


def compression_of(told, kind=Compression):
    known(told, COMPRESSION, "compression")
    weighting = told["score_weighting_method"]
    return kind(
        told["mix_lambda"], kernel=told.get("kernel_size", 7), by=told["compress_strategy"],
        queries=told["query_granularity"], weighting="even" if weighting == "no_weight" else weighting,
        power=told["power"],
    )  # fmt: skip


def transformer(golden, size, config, null=None):
    """The tiny model of "4p5b" or "24b". null: takes the place of its null caption."""
    given = config["model_config"]
    sizes = {field: given[key] for key, field in (COUNTS | SWITCHES | NUMBERS).items()}
    if null is not None:
        sizes["text_len"] = len(null)
    made = MagiConfig(
        **sizes, channels=given["in_channels"] // (2 if given["half_channel_vae"] else 1),
        condition_dim=int(given["hidden_size"] * given["cond_hidden_ratio"]),
        patch=(given["t_patch_size"], given["patch_size"], given["patch_size"]),
    )  # fmt: skip
    weights = golden.tensors(f"magi_dit_{size}_tiny.weights")
    if null is not None:
        weights["y_embedder.null_caption_embedding"] = null
    model = MagiTransformer(made)
    model.load_state_dict(weights)
    return model.eval()
