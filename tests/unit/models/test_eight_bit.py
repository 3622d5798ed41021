"""Weights of 8 bits: held so, and read from checkpoints that store them so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.eight_bit import error, velocity
from flowcache.errors import InputError
from flowcache.families.check import check, sound
from flowcache.families.known import family
from flowcache.families.memory import weight_bytes
from flowcache.families.registry import bundled, find, load_model
from flowcache.models.eight_bit import EightBit, matrices, packed
from flowcache.models.tensors import in_folder
from flowcache.records import Precision
from tests.published import tiny_parts, write_diffusers
from tests.published_magi import PER_CHANNEL, write_magi

ERROR = {"int8": 0.01, "fp8": 0.03}  # of a matrix of normal numbers


@pytest.mark.parametrize("kind", ERROR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_operation_sees_the_matrix(kind, dtype):
    torch.manual_seed(0)
    weight, x = torch.randn(48, 64), torch.randn(3, 64, dtype=dtype)
    held = packed(weight, kind, dtype)
    assert (held.dtype, held.shape, held.packed.element_size()) == (dtype, weight.shape, 1)
    assert error(held.whole(), weight) < ERROR[kind]
    right = F.linear(x, held.whole())
    assert torch.equal(F.linear(x, held), right) and torch.equal(x @ held.T, right)
    assert torch.equal(F.linear(x.float(), held.float()), F.linear(x.float(), held.whole().float()))
    layer = nn.Linear(64, 48, bias=False, device="meta")
    layer.load_state_dict({"weight": held}, assign=True)
    assert isinstance(layer.weight, nn.Parameter) and torch.equal(layer(x), right)
    assert type(layer(x)) is torch.Tensor and layer.weight.packed is held.packed


@given(
    st.lists(st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False), min_size=4, max_size=4),
    st.sampled_from(sorted(ERROR)),
)
def test_rows_of_any_size_stay_finite_and_near(values, kind):
    weight = torch.tensor([values, [0.0] * 4])
    found = packed(weight, kind, torch.float32).whole()
    assert found.isfinite().all() and (found[1] == 0).all()
    assert ((found - weight).abs()[0] <= weight[0].abs().max() * 0.04 + 1e-20).all()


@pytest.mark.parametrize("name", bundled())
@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("fp8", 0.06)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_bundled_models_hold_their_blocks_in_8_bits(name, kind, most, dtype):
    whole, held = (load_model(name, dtype=dtype, weights=weights) for weights in ("auto", kind))
    eight = {key for key, value in held.transformer.named_parameters() if isinstance(value, EightBit)}
    assert eight == matrices(held.transformer) and len(eight) >= 8 * held.transformer.layers
    assert {key: p.dtype for key, p in held.transformer.named_parameters()} == {
        key: p.dtype for key, p in whole.transformer.named_parameters()
    }
    assert 0 < error(velocity(held, "a red circle"), velocity(whole, "a red circle")) < most


@pytest.mark.parametrize("name", bundled())
@pytest.mark.parametrize("kind", ERROR)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_memory_counts_what_is_held(name, kind, dtype):
    model = load_model(name, dtype=dtype, weights=kind).transformer
    parameters = [p.data for p in model.parameters()]
    held = [p for p in parameters if isinstance(p, EightBit)]
    there = sum(p.packed.nbytes + p.scale.nbytes for p in held)
    there += sum(p.nbytes for p in parameters if not isinstance(p, EightBit))
    precision = Precision(dtype, kind)
    counted = weight_bytes(model.config, 1, precision).resident - max(precision.element * p.numel() for p in held)
    assert counted == there < weight_bytes(model.config, 1, Precision(dtype)).resident * 0.75


# Checkpoints that store 8 bits.


def test_official_magi_weights_of_8_bits_are_read(tmp_path):
    """Against the official layer's arithmetic, but for rounding what goes into it."""
    config = write_magi(tmp_path, quantised=True)
    assert check(config).problems == [] and sound(str(config)).pipeline.distilled
    assert check(config).parts["transformer"].precision == "F32, F8_E4M3"
    folder = tmp_path / "downloads" / "tiny" / "inference_weight.fp8.distill"
    state = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    stored = [name for name in state if state[name].dtype == torch.float8_e4m3fn]
    assert len(stored) == 2 * 7
    auto, fp8, int8 = (load_model(str(config), weights=weights).transformer for weights in ("auto", "fp8", "int8"))
    for name in stored:
        raw, given = state[name][0].float(), state[name.replace("weight", "input_scale")]
        x = torch.randn(5, raw.shape[1])
        divided = x / (state[name.replace("weight", "smooth_scale")] if name[:-7].endswith(PER_CHANNEL) else given)
        right = divided @ raw.T * given[0] * state[name.replace("weight", "weight_scale")]
        for model, most in ((auto, 1e-5), (fp8, 1e-5), (int8, 0.02)):
            assert error(F.linear(x, model.get_parameter(name)), right) < most
        assert torch.equal(fp8.get_parameter(name).packed, state[name][0])


SCALED = {
    "plain": {},
    "comfyui": {"scale_weight": "one", "scale_input": "one"},
    "one number": {"weight_scale": "one", "input_scale": "one"},
    "a row each": {"weight_scale": "rows"},
    "a row each, a column": {"weight_scale": "column"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    return write_diffusers(tiny_parts(), tmp_path_factory.mktemp("whole") / "SkyReels-V2-DF")


def rewritten(whole: Path, folder: Path, change) -> Path:
    shutil.copytree(whole, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(change(load_file(file)), file)
    return folder


def scaled(state, kind):
    found = {}
    for name, tensor in state.items():
        found[name] = tensor.clone()
        if tensor.ndim != 2 or "blocks" not in name:
            continue
        by = SCALED[kind].get("weight_scale", SCALED[kind].get("scale_weight"))
        scale = torch.ones(()) if by is None else (tensor.abs().amax(1) if by != "one" else tensor.abs().amax()) / 448
        found[name] = (tensor / (scale[:, None] if scale.ndim else scale)).to(torch.float8_e4m3fn)
        for key, shape in SCALED[kind].items():
            value = scale if "weight" in key else torch.tensor(0.7)
            found[name.replace("weight", key)] = value[:, None].clone() if shape == "column" else value.clone()
    return found | ({"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)} if kind == "comfyui" else {})


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("weights", ["auto", "fp8", "int8"])
def test_diffusers_weights_of_8_bits_are_read(whole, tmp_path, kind, weights):
    folder = rewritten(whole, tmp_path / "model", lambda state: scaled(state, kind))
    assert check(folder).problems == []
    found, right = load_model(str(folder), weights=weights).transformer, load_model(str(whole)).transformer
    for name in matrices(right):
        assert error(found.get_parameter(name).detach() + 0, right.get_parameter(name)) < 0.05
        assert isinstance(found.get_parameter(name), EightBit) == (weights != "auto")
    assert torch.equal(found.head.head.weight, right.head.head.weight)


def test_a_whole_file_of_float8_is_read(whole, tmp_path):
    """As `model.to(torch.float8_e4m3fn).save_pretrained` leaves it."""
    folder = rewritten(
        whole, tmp_path / "model", lambda state: {k: v.to(torch.float8_e4m3fn) for k, v in state.items()}
    )
    found = load_model(str(folder)).transformer
    for name, right in load_model(str(whole)).transformer.named_parameters():
        assert torch.equal(found.get_parameter(name), right.to(torch.float8_e4m3fn).float())


BLOCK = "blocks.0.attn1.to_q."
REFUSED = {
    "scales of blocks": (lambda s: {BLOCK + "weight_scale": torch.ones(2, 2)}, "has weight_scale of shape [2, 2]"),
    "scales of another size": (lambda s: {BLOCK + "weight_scale": torch.ones(7)}, "accepted: one number, or one for"),
    "inverse scales": (lambda s: {BLOCK + "weight_scale_inv": torch.ones(1)}, "weight_scale_inv: is no tensor of this"),
    "integers": (lambda s: {BLOCK + "weight": s[BLOCK + "weight"].to(torch.int8)}, "has dtype I8; accepted: F64, F32"),
    "a mark without scales": (lambda s: {"scaled_fp8": torch.zeros(2)}, "scaled_fp8: is no tensor of this model"),
    "scales of a whole weight": (
        lambda s: {BLOCK + "weight_scale": torch.ones(1), BLOCK + "weight": torch.ones(24, 24)},
        "weight_scale: is no tensor of this model",
    ),
}


@pytest.mark.parametrize("title", REFUSED)
def test_what_is_packed_otherwise_is_refused_with_what_to_take(whole, tmp_path, title):
    change, says = REFUSED[title]

    def changed(state):
        eight = {BLOCK + "weight": state[BLOCK + "weight"].to(torch.float8_e4m3fn)}
        return state | eight | change(state)

    folder = rewritten(whole, tmp_path / "model", changed)
    said = "\n".join(map(str, check(folder).problems))
    assert says in said and ("no tensor" in says or "take the checkpoint in bfloat16, with weights: int8" in said)
    with pytest.raises(InputError):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"a": 1}, "a library"),
    ],
)
@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_what_a_library_packed_is_refused_by_its_name(whole, tmp_path, part, said, method):
    folder = rewritten(whole, tmp_path / "model", lambda state: state)
    config = folder / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": said}))
    (problem,) = check(folder).problems
    assert str(problem).startswith(f"{config}: quantization_config: says that {method} packed the weights")


def test_magi_1_1_with_stacked_blocks_is_refused_by_its_name(tmp_path):
    config = write_magi(tmp_path)
    folder = tmp_path / "downloads" / "tiny" / "inference_weight.distill"
    state = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    for file in folder.iterdir():
        file.unlink()
    stacked = {"videodit_blocks.layers.self_attention.linear_qkv.weight": torch.ones(2, 160, 64)}
    save_file({k: v for k, v in state.items() if ".layers." not in k} | stacked, folder / "model.safetensors")
    (problem,) = check(config).problems
    assert "as MAGI-1.1's 24B base was published" in str(problem) and "accepted: MAGI-1, or" in str(problem)


def test_rows_of_weights_of_8_bits_are_cut_as_others(tmp_path):
    """As gangs with sharded weights read them."""
    config = write_magi(tmp_path, quantised=True)
    owner = family("magi")
    part = owner.part(owner.layout(Path(find(str(config)).path)))
    assert any(entry.scales for entry in in_folder(part.where))
    whole = part.tensors("cpu", torch.float32, owner.keep_float32)
    cut = part.tensors("cpu", torch.float32, owner.keep_float32, lambda name: slice(1, 3))
    assert all(torch.equal(cut[name], whole[name][1:3]) for name in whole)
