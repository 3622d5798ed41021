"""Jobs through the job API of a real Ray whose dashboard asks for its token."""

import json
from pathlib import Path

import pytest


def ended(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture
def job(tmp_path) -> Path:
    """One whose manifest asks for an impossible length: the cluster refuses it before it renders."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a red circle", "frames": 22}\n')
    path = tmp_path / "job.yaml"
    path.write_text(f"manifest: {tmp_path}/rows.jsonl\noutput: {tmp_path}/out\n")
    return path


def test_a_job_is_followed_to_its_end(finished):
    assert finished.code == 0, finished.err
    assert "submitted" in finished.err and "exit code 0" in finished.err
    assert "a: segment 1 of 1 committed" in finished.out and "2 videos done" in finished.out
    assert (finished.job.parent / "out" / "_SUCCESS").is_file()


def test_the_same_job_is_found_again(head, finished):
    code, out, err = ended(head.submit(finished.job, "--json"))
    found = json.loads(out)
    assert code == 0 and (found["status"], found["exit_code"], found["started"]) == ("SUCCEEDED", 0, False)
    assert found["submission_id"] in finished.err and "2 videos done" in err


def test_the_exit_code_of_the_job_comes_through(head, job):
    code, out, _ = ended(head.submit(job))
    assert code == 2 and "row 1: frames: got 22" in out


def test_without_the_token_nothing_is_sent(head, job, tmp_path):
    nowhere = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": None}
    for token, mode, cause in (
        (None, "disabled", "Authentication required"),
        (None, "token", "couldn't find an authentication token"),
        ("x" * 64, "token", "Authentication failed"),
    ):
        code, _, err = ended(head.submit(job, **nowhere, RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token))
        assert code == 2 and cause in err, err
        assert "RAY_AUTH_MODE=token" in err and "Traceback" not in err
