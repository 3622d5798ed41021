"""What a module pulls in: the engine runs where only torch is, and looking at a store takes no torch."""

import subprocess
import sys

import pytest

ENGINE = [
    "sampling.loop", "families.skyreels.weights", "families.registry", "parallel.apply", "cache.kv_select",
]  # fmt: skip
OTHERS = ["ray", "fsspec", "pyarrow", "av", "diffusers", "transformers", "pydantic", "typer", "rich", "yaml", "PIL"]


def imports(modules: list[str], absent: list[str]) -> subprocess.CompletedProcess:
    """Import the modules in a Python where `absent` can't be imported."""
    lines = [
        "import sys",
        *(f"sys.modules[{name!r}] = None" for name in absent),
        *(f"import {name}" for name in modules),
    ]
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_needs_torch_alone(module):
    done = imports([f"flowcache.{module}"], OTHERS)
    assert done.returncode == 0, done.stderr


def test_looking_at_a_store_needs_neither_torch_nor_ray():
    modules = [
        "flowcache.cli.main",
        "flowcache.storage.status",
        "flowcache.storage.verify",
        "flowcache.families.registry",
    ]
    done = imports(modules, ["torch", "ray", "transformers", "diffusers"])
    assert done.returncode == 0, done.stderr


def test_the_check_itself_works():
    assert imports(["flowcache.api"], ["ray"]).returncode != 0
