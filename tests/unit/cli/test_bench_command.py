"""`flowcache bench`: what is wrong is said before any weights are loaded."""

import sys

import pytest

from flowcache.cli.main import main
from flowcache.families import registry


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """refused(option, ...) -> what is said of them."""
    monkeypatch.setattr(registry, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    monkeypatch.chdir(tmp_path)

    def call(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["flowcache", "bench", "tiny-magi", "--out", "out", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and not (tmp_path / "out").is_dir()
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policies", "sage"], "error: --policies: got 'sage'; accepted: flowcache:B, fewer-steps:B"),
        (["--policies", "flowcache:2"], "error: --policies: got 'flowcache:2'; accepted after 'flowcache:'"),
        (["--policies", "paper:soft"], "error: --policies: paper:soft: unknown preset 'soft'"),
        (["--target", "best"], "error: --target: got 'best'; accepted: 'off' or 'converged'"),
        (["--target", "converged", "--no-converged"], "error: --no-converged: does not go with --target converged"),
        (["--prompts", "missing.txt"], "error: missing.txt: can't be read"),
        (["--device", "gpu"], "error: --device: got 'gpu'; accepted: cpu, cuda or one as cuda:1"),
        (["--device", "cuda:99"], "error: --device: got 'cuda:99', and this machine has"),
        (["--out", "s3://bucket/x"], "error: --out: 's3:/bucket/x' is a URL; accepted: a folder on this machine"),
        (["--policies", "kv", "--chunks", "9"], "error: --policies: kv-recent:2: holds K/V of 6 chunks at once, those"),
        (["--policies", "kv", "--chunks", "9"], "--policies: kv-compressed:8: holds K/V of 9 chunks at once"),
        (
            ["--policies", "all,kv-recent:1"],
            "kv-recent:1: holds K/V of 3 chunks at once, those under way included, and",
        ),
        (
            ["--policies", "kv-sink:1"],
            "error: --policies: got 'kv-sink:1'; accepted after 'kv-sink:': 2 to 1001 chunks",
        ),
        (["--chunks", "0"], "Invalid value for '--chunks'"),
        (["--guidance", "51"], "Invalid value for '--guidance'"),
        (["--n", "0"], "Invalid value for '--n'"),
        (["--seed", "2000001"], "Invalid value for '--seed'"),
    ],
)
def test_what_is_wrong_is_said_first(refused, options, said):
    assert said in refused(*options)


def test_a_folder_that_cannot_be_written_to(refused, tmp_path):
    (tmp_path / "out").touch()
    assert refused().startswith("error: --out: 'out' is a file; accepted: a folder")
