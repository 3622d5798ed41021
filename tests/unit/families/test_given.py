"""What is given as a model and is none, or another one: each is told as what it is."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from flowcache.api import check as check_rows
from flowcache.cli.main import app
from flowcache.errors import InputError
from flowcache.families.check import check, sound
from flowcache.families.registry import find, folder_of
from flowcache.families.skyreels.weights import read_config
from flowcache.inputs.schema import RowDefaults
from tests.given_models import GIVEN
from tests.published import OFFICIAL, tiny_parts, write_diffusers, write_official
from tests.weights_files import BAD, GGUF, LORA, PAGE, POINTER, SOUND, WHOLE


def told(name: object) -> str:
    """The same by `find` as by `models check`, and one fault alone."""
    with pytest.raises(InputError) as caught:
        find(str(name))
    (problem,) = caught.value.problems
    assert str(problem) == "".join(map(str, check(Path(str(name))).problems)) or not Path(str(name)).exists()
    assert problem.message.isprintable() and len(problem.message) < 400
    return str(problem)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    torch.set_num_threads(1)
    parts, root = tiny_parts(), tmp_path_factory.mktemp("given")
    write_diffusers(parts, root / "diffusers")
    write_official(parts, root / "official")
    return root


@pytest.fixture
def copied(originals, tmp_path):
    return lambda layout, name="model": shutil.copytree(originals / layout, tmp_path / name)


@pytest.mark.parametrize(
    "name", ["Skywork/SkyReels-V2-DF-1.3B-540P", "https://huggingface.co/Skywork/SkyReels-V2-DF-1.3B-540P/tree/main",
             "hf://Skywork/SkyReels-V2-DF-1.3B-540P"],
)  # fmt: skip
def test_what_lies_on_the_hub_is_told_how_to_download(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "run hf download Skywork/SkyReels-V2-DF-1.3B-540P --local-dir SkyReels-V2-DF-1.3B-540P, and give" in told(
        name
    )
    (tmp_path / "Skywork").mkdir()
    assert ("hf download" in told(name)) == (name[0] != "S")  # a relative path into a folder that is there


@pytest.mark.parametrize(
    ("name", "says"),
    [("/no/such/model", "does not exist: give tiny-magi, tiny-skyreels or a folder"), ("no-such", "does not exist"),
     ("s3://bucket/model", "is a URL; accepted: the path of a folder"),
     ("x" * 5000, "can't be read: File name too long"), ("a\0b", "holds a null character"), ("", "is no model: give")],
)  # fmt: skip
def test_what_is_nowhere_is_told_so(name, says):
    with pytest.raises(InputError) as caught:
        find(name)
    assert says in str(caught.value)


FILES = {
    "m.gguf": (GGUF, "is a GGUF file .* take the model's safetensors"),
    "m.safetensors": (SOUND, "is no model but a single file: give "),
    "page.safetensors": (PAGE, "is an HTML page"),
    "pointer.safetensors": (POINTER, "is a Git LFS pointer .* run git lfs pull"),
    "empty.safetensors": (b"", "is empty: a download that failed"),
}


@pytest.mark.parametrize("file", FILES)
def test_single_files_are_told_what_they_are(tmp_path, file):
    (tmp_path / file).write_bytes(FILES[file][0])
    with pytest.raises(InputError, match=FILES[file][1]):
        find(str(tmp_path / file))


@pytest.mark.parametrize(("state", "says"), [(LORA, "is a LoRA"), (WHOLE, "is a single-file checkpoint")])
def test_adapters_and_single_file_checkpoints_are_told_what_they_are(tmp_path, state, says):
    save_file(state, tmp_path / "m.safetensors")
    assert says in told(tmp_path / "m.safetensors")
    assert f"holds m.safetensors, which {says}" in told(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds a LoRA or another adapter alone" in told(tmp_path)


def test_folders_without_a_model_are_told_what_they_hold(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is an empty folder" in told(tmp_path / "empty")
    (tmp_path / "quantised").mkdir()
    (tmp_path / "quantised" / "model-Q4_0.gguf").write_bytes(GGUF)
    assert "holds model-Q4_0.gguf, which is a GGUF file" in told(tmp_path / "quantised")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(SOUND)
    assert "holds weights (model.safetensors) and no config.json" in told(tmp_path / "weights")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "is a link to nothing" in told(tmp_path / "link")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "is a link to nothing" in told(tmp_path / "loop")


@pytest.mark.parametrize(
    "name", ["SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline", "WanPipeline", "HunyuanVideoPipeline", None, 3, []]
)
def test_other_pipelines_with_tensors_that_fit_are_refused_by_their_class(copied, name):
    folder = copied("diffusers")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    said = told(folder)
    assert said.startswith(f"{folder}/model_index.json: _class_name: is that of ")
    assert (f"of class {name!r}" if name else "no pipeline") in said and "DF (diffusion forcing) in its name" in said


@pytest.mark.parametrize("name", ["ImageToVideo", "VideoToVideo", ""])
def test_every_pipeline_of_diffusion_forcing_is_accepted(copied, name):
    folder = copied("diffusers")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": f"SkyReelsV2DiffusionForcing{name}Pipeline"}))
    assert check(folder).problems == []


@pytest.mark.parametrize("layout", ["diffusers", "official"])
def test_other_transformers_are_refused_by_their_class(copied, layout):
    folder = copied(layout)
    config = folder / "transformer" / "config.json" if layout == "diffusers" else folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "WanTransformer3DModel"}))
    assert f"{config}: _class_name: is that of a transformer of class 'WanTransformer3DModel'" in told(folder)


def test_image_to_video_models_are_known_by_what_they_see_pictures_with(copied):
    folder = copied("official")
    (folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth").write_bytes(b"x")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "i2v"}))
    assert "belongs to an image-to-video model" in told(folder)


@pytest.mark.parametrize(
    ("name", "doubted"),
    [("SkyReels-V2-T2V-14B-540P", "T2V"), ("SkyReels-V2-I2V-14B-720P", "I2V"), ("Wan2.1-T2V-1.3B", "WAN"),
     ("SkyReels-V2-DF-14B-540P", ""), ("my-t2v-DF", ""), ("wander", "")],
)  # fmt: skip
def test_a_name_of_another_kind_is_a_warning(copied, name, doubted):
    folder = copied("official", name)
    report = check(folder)
    assert report.problems == [] and len(report.warnings) == bool(doubted)
    *_, warnings, _ = check_rows([{"prompt": "a red circle", "model": str(folder)}], RowDefaults())
    assert warnings == report.warnings and all(f"another kind ({doubted})" in str(each) for each in warnings)


def test_a_config_of_wan_is_a_warning(copied):
    folder = copied("official", "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"inject_sample_info": False}))
    assert check(folder).warnings == []
    del raw["inject_sample_info"]
    (folder / "config.json").write_text(json.dumps(raw))
    (warning,) = check(folder).warnings
    assert str(warning).startswith(f"{folder}/config.json: inject_sample_info: is missing, as in configs of Wan")


def test_official_configs_that_say_no_width_of_texts_are_read(tmp_path):
    """As none of them does: `WanModel.ignore_for_config`."""
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in OFFICIAL.items() if k != "text_dim"}))
    assert read_config(tmp_path).text_dim == 4096


def as_cache(folder: Path, cache: Path, revision: str = "4f1c") -> Path:
    """A checkpoint as the Hugging Face cache keeps it: links into blobs. Its models--ORG--NAME folder."""
    root = cache / "models--Skywork--SkyReels-V2-DF-14B-720P"
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    for file in (each for each in folder.rglob("*") if each.is_file()):
        blob = root / "blobs" / f"{abs(hash(file)):x}"
        shutil.copy(file, blob)
        link = root / "snapshots" / revision / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(link.relative_to(root).parts) - 1)) / "blobs" / blob.name)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(revision)
    return root


@pytest.mark.parametrize("layout", ["diffusers", "official"])
def test_a_cache_of_hugging_face_is_read_through_its_links(originals, tmp_path, layout):
    root = as_cache(originals / layout, tmp_path)
    for path in (root, root / "snapshots" / "4f1c"):
        spec = sound(str(path))
        assert (spec.name, spec.width, spec.path) == ("SkyReels-V2-DF-14B-720P", 1280, str(root / "snapshots" / "4f1c"))
        assert check(folder_of(str(path))).problems == []
    assert spec.digest == find(str(originals / layout)).digest
    (root / "refs" / "main").unlink()
    assert find(str(root)).path == spec.path
    assert "is a cache of Hugging Face; give one of its models: models--Skywork--SkyReels" in told(tmp_path)


def test_a_cache_that_holds_no_one_revision_says_so(originals, tmp_path):
    root = as_cache(originals / "diffusers", tmp_path)
    (root / "refs" / "main").write_text("beef\n")
    again = "the download did not finish: run hf download Skywork/SkyReels-V2-DF-14B-720P again"
    with pytest.raises(InputError, match=f"main: names revision 'beef', which is not there; {again}"):
        find(str(root))
    (root / "refs" / "main").write_bytes(b"../../..\xff")
    with pytest.raises(InputError, match="which is not there"):
        find(str(root))
    (root / "refs" / "main").unlink()
    (root / "snapshots" / "beef").mkdir()
    with pytest.raises(InputError, match="holds 2 revisions and no refs/main; give one of 4f1c, beef"):
        find(str(root))
    shutil.rmtree(root / "snapshots")
    (root / "snapshots").mkdir()
    with pytest.raises(InputError, match=f"snapshots: is empty; {again}"):
        find(str(root))


def test_a_blob_that_is_missing_is_named(originals, tmp_path):
    root = as_cache(originals / "diffusers", tmp_path)
    file = root / "snapshots" / "4f1c" / "vae" / "diffusion_pytorch_model.safetensors"
    (file.parent / file.readlink()).unlink()
    with pytest.raises(InputError, match=r"diffusion_pytorch_model.safetensors: is missing"):
        find(str(root))


def asked(*command: str) -> tuple[int, str]:
    """Exit code, and what was printed, in one line."""
    done = CliRunner().invoke(app, command)
    if isinstance(done.exception, InputError):  # `main` prints it
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: given.title)
def test_models_check_says_what_was_given(given, tmp_path, monkeypatch):
    """docs/bad-input.md shows them."""
    monkeypatch.chdir(tmp_path)
    problems = given.problems()
    assert len(problems) == 1 and given.says in str(problems[0])
    code, said = asked("models", "check", given.name)
    assert code == 2 and given.says in said
    assert asked("models", given.name)[0] in (0, 2)  # without a look at weights


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.title)
def test_models_check_says_what_a_bad_file_of_weights_is(originals, tmp_path, bad):
    """Every file of the corpus, as a part of a checkpoint that is sound but for it."""
    layout, name = ("diffusers", "transformer/diffusion_pytorch_model.safetensors"), ("official", "Wan2.1_VAE.pth")
    kind, place = layout if bad.file.endswith(".safetensors") else name
    folder = shutil.copytree(originals / kind, tmp_path / "model", copy_function=os.link)
    (folder / place).unlink()
    (folder / place).write_bytes(bad.content)
    code, said = asked("models", "check", str(folder))
    assert code == 2 and re.search(bad.says, said) and f"{folder / place}: " in said
