"""Jobs through the job API of a real Ray whose dashboard asks for its token."""

import json
from pathlib import Path

import pytest

from tests.polyglot import polyglot

HOSTILE = ("yaml.py", "sitecustomize.py", "torch/__init__.py")  # what the job's processes import as they start


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
    assert "a: segment 0 (1 in all) committed" in finished.out and "2 videos done" in finished.out
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


def hostile(folder: Path, content: bytes) -> Path:
    """A job whose pictures are called as modules are."""
    for name in HOSTILE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    row = {"prompt": "a red circle", "frames": 9, "steps": 2}
    rows = [row | {"id": "a", "image": HOSTILE[0], "end_image": HOSTILE[1]}, row | {"id": "b", "image": HOSTILE[2]}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = folder / "job.yaml"
    job.write_text(f"manifest: {folder}/rows.jsonl\noutput: {folder}/out\ngangs: 1\n")
    return job


def leaving(trace: Path) -> str:
    """Code that tells which process ran it."""
    return f"import sys\nopen({str(trace)!r}, 'a').write(f'{{__name__}} in {{sys.argv}}\\n')\n"


def test_a_picture_that_is_a_module_is_rendered_and_not_run(head, tmp_path):
    trace = tmp_path / "trace"
    code, out, err = ended(head.submit(hostile(tmp_path, polyglot(leaving(trace)))))
    assert not trace.exists(), trace.read_text()
    assert code == 0 and "2 videos done" in out, out + err


def test_a_module_that_is_no_picture_is_not_sent(head, tmp_path):
    trace = tmp_path / "trace"
    code, out, err = ended(head.submit(hostile(tmp_path, leaving(trace).encode())))
    assert code == 2 and not out and "submitted" not in err
    for place, name in zip(("1: image", "1: end_image", "2: image"), HOSTILE, strict=True):
        assert f"row {place}: '{name}' is no picture that can be opened" in err.replace("\n", " ")
    assert not trace.exists(), trace.read_text()
