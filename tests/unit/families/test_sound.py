"""Checkpoints with a flowcache.json are looked through as published ones are, before anything is planned."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from flowcache.errors import InputError
from flowcache.families import calibrations
from flowcache.families.check import check, sound
from flowcache.families.registry import bundled, find, folder_digest, load_model

PARTS = ("transformer", "vae", "text_encoder")


@pytest.fixture(params=bundled())
def folder(request, tmp_path):
    return shutil.copytree(find(request.param).path, tmp_path / "model")


def weights(folder: Path, part: str) -> Path:
    (file,) = (folder / part).glob("*.safetensors")
    return file


def told(folder: Path) -> str:
    """By what is asked before a plan or a run, and by `models check`."""
    with pytest.raises(InputError) as caught:
        sound(str(folder))
    assert check(folder).problems
    return str(caught.value)


def test_sound_ones_pass(folder):
    assert sound(str(folder)).digest and check(folder).problems == []


@pytest.mark.parametrize("part", PARTS)
def test_garbage_and_links_to_other_files_are_named(folder, part):
    file = weights(folder, part)
    file.write_bytes(os.urandom(1000))
    assert f"{file}: " in told(folder)
    file.unlink()
    file.symlink_to(weights(folder, PARTS[PARTS.index(part) - 1]))
    folder_digest.cache_clear()
    assert f"{file}: " in told(folder) and "is no tensor of this model" in told(folder)


def test_a_calibration_of_other_weights_is_told_where_nothing_else_is_wrong(tmp_path):
    folder = shutil.copytree(find("tiny-skyreels").path, tmp_path / "model")
    state = load_file(weights(folder, "transformer"))
    save_file({name: 2 * tensor for name, tensor in state.items()}, weights(folder, "transformer"))
    assert told(folder).startswith(f"{folder / calibrations.FILE}: checkpoint: is another's; ")


@pytest.mark.parametrize("part", PARTS)
def test_links_to_the_same_weights_pass(folder, part):
    file = weights(folder, part)
    file.rename(folder / "blob")
    file.symlink_to(folder / "blob")
    assert check(folder).problems == [] and sound(str(folder))


@pytest.mark.parametrize(
    "name",
    [
        "transformer/model.safetensors",
        "vae/x.safetensors",
        "special_tokens.npz",
        "flowcache.json",
        "transformer/config.json",
        "tokenizer/tokenizer.json",
        "text_encoder/config.json",
    ],
)
@pytest.mark.parametrize(
    ("make", "what"), [(os.mkfifo, "a pipe"), (lambda path: path.symlink_to("/dev/zero"), "a device")]
)
def test_pipes_and_devices_are_named_and_not_waited_for(folder, impatient, name, make, what):
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    assert f"{name}: is {what}; accepted: a regular file" in told(folder)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("damage", "says"), [("lost", "is missing"), ("shape", "the config asks for")])
def test_every_tensor_is_looked_at(folder, part, damage, says):
    state = load_file(weights(folder, part))
    first = next(key for key in sorted(state) if state[key].ndim == 2)
    tensor = state.pop(first)
    save_file(state if damage == "lost" else state | {first: tensor[:1].contiguous()}, weights(folder, part))
    assert says in told(folder) and (damage == "lost" or f"{first}: " in told(folder))
    with pytest.raises(InputError):
        load_model(str(folder), texts=["a red circle"])


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_cut_flipped_or_swapped_end_as_sentences(tmp_path_factory, data):
    """Whatever is done to a file of a checkpoint: it is sound, or InputError."""
    name = data.draw(st.sampled_from(bundled()))
    folder = shutil.copytree(find(name).path, tmp_path_factory.mktemp("mutated") / "model")
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md")
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip", "nested", "swap", "grow", "insert"]))
    at = data.draw(st.integers(0, min(len(content) - 1, 3000)))
    if kind == "cut":
        content = content[:at]
    elif kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "nested":
        content = bytearray(b'{"a":' * 20000 + b"1" + b"}" * 20000)
    elif kind == "swap":
        content = bytearray(data.draw(st.sampled_from(files)).read_bytes())
    elif kind == "grow":
        content += bytes(at)
    else:
        content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    file.write_bytes(content)
    try:
        sound(str(folder))
    except InputError as error:
        assert error.problems and all(problem.message for problem in error.problems)


ODD = {
    "transformer": [("patch_size", [-1, 2, 2]), ("freq_dim", 10**30), ("num_layers", 65537), ("positions", [{}, 1])],
    "text_encoder": [("num_layers", 10**30), ("d_model", "wide"), ("dense_act_fn", 3), ("num_decoder_layers", 5000)],
    "vae": [("time_stride", [1]), ("hidden", -3), ("latent_channels", 10**30), ("latent_channels", None)],
}


@pytest.mark.parametrize(("part", "key", "value"), [(part, *each) for part, odd in ODD.items() for each in odd])
def test_whatever_a_config_makes_of_a_module_is_told(tmp_path, impatient, part, key, value):
    folder = shutil.copytree(find("tiny-skyreels").path, tmp_path / "model")
    config = folder / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    assert f"{config}: " in told(folder)


@given(st.text(max_size=40) | st.from_regex(r"[\w./:~-]{1,30}", fullmatch=True) | st.just("/" * 300) | st.just("/proc"))
def test_whatever_is_given_is_a_model_or_told_what_it_is(name):
    try:
        find(name)
    except InputError as error:
        assert all(0 < len(problem.message) < 400 + len(repr(name)) for problem in error.problems)
