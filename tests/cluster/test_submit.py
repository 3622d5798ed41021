"""Jobs through the job API of a real Ray whose dashboard asks for its token."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROW = {"id": "v", "prompt": "a red circle moving right on a blue background", "frames": 9, "steps": 2}


def submit(head, *args, **changes: str | None) -> subprocess.CompletedProcess:
    """`flowcache submit` as somebody with the token, in a process of its own; None removes a variable."""
    env = {name: value for name, value in (head.client | changes).items() if value is not None}
    command = [sys.executable, "-m", "flowcache.cli", "submit", *map(str, args), "--address", head.url]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def job(tmp_path) -> Path:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    path = tmp_path / "job.yaml"
    path.write_text(f"manifest: {tmp_path}/rows.jsonl\noutput: {tmp_path}/out\ngangs: 1\n")
    return path


def test_a_job_is_followed_to_its_end_and_found_again(head, job, tmp_path):
    first = submit(head, job)
    assert first.returncode == 0, first.stderr
    assert "submitted" in first.stderr and "exit code 0" in first.stderr
    assert "v: segment 1 of 1 committed" in first.stdout and "1 videos done" in first.stdout
    assert (tmp_path / "out" / "_SUCCESS").is_file()

    again = submit(head, job, "--json")
    found = json.loads(again.stdout)
    assert (found["status"], found["exit_code"], found["started"]) == ("SUCCEEDED", 0, False)
    assert found["submission_id"] in first.stderr


def test_the_exit_code_of_the_job_comes_through(head, job, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a red circle", "frames": 22}\n')
    ended = submit(head, job)
    assert ended.returncode == 2
    assert "row 1: frames: got 22" in ended.stdout


def test_without_the_token_nothing_is_sent(head, job, tmp_path):
    nowhere = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": None}
    for token, mode, cause in (
        (None, "disabled", "Authentication required"),
        (None, "token", "Authentication required"),
        ("x" * 64, "token", "Authentication failed"),
    ):
        refused = submit(head, job, **nowhere, RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token)
        assert refused.returncode == 2 and cause in refused.stderr, refused.stderr
        assert "RAY_AUTH_MODE=token" in refused.stderr and "Traceback" not in refused.stderr
