"""Golden vectors as fixtures; what DIR does not hold is not collected."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.skyreels_videos import transformer_of


class Golden:
    """The files of one folder, by name without ending."""

    def __init__(self, folder):
        self.folder = folder

    def facts(self, name):
        """The JSON of `name`, or None where the folder has none."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def tensors(self, name):
        return load_file(self.folder / f"{name}.safetensors")

    def model(self, heads, inject_sample_info):
        """The tiny SkyReels model, its sizes read from the forward cases and the weights."""
        sizes = self.facts("skyreels_forward")["config"]
        return transformer_of(sizes, heads, inject_sample_info, self.tensors("skyreels_weights"))


@pytest.fixture(scope="session")
def golden(request):
    torch.set_num_threads(1)
    return Golden(request.config.getoption("--golden"))


def pytest_generate_tests(metafunc):
    """`@pytest.mark.golden(name, *keys, only=regex)`: one test per case that the JSON lists under the keys.

    A name that ends in * stands for all files that begin so; their cases say which `file` they are of.
    """
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    name, *keys = marker.args
    golden = Golden(metafunc.config.getoption("--golden"))
    cases = list_cases(golden, name, keys)
    if name.endswith("*"):
        files = sorted(path.stem for path in golden.folder.glob(f"{name}.json"))
        cases = [case | {"file": file} for file in files for case in list_cases(golden, file, keys)]
    if only := marker.kwargs.get("only"):
        cases = [case for case in cases if re.fullmatch(only, case["name"])]
    metafunc.parametrize("case", cases, ids=[case_name(case) for case in cases])


def list_cases(golden, name, keys):
    cases = golden.facts(name) or []
    for key in keys if cases else []:
        cases = cases[key]
    return [{"name": name, **case} for name, case in cases.items()] if isinstance(cases, dict) else cases


def pytest_collection_modifyitems(config, items):
    """Drop the placeholders that pytest makes for tests without a case: their file is not in the folder."""
    empty = [item for item in items if item.get_closest_marker("golden") and item.callspec.id == "NOTSET"]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def case_name(case):
    if "name" in case:
        return case["name"]
    return "_".join(f"{k}{case[k]}" for k in ("id", "N", "F", "ar", "pre", "blk", "shift") if k in case)


def pytest_configure(config):
    config.addinivalue_line("markers", "golden(name, *keys, only): parametrise `case` from the golden JSON `name`")
