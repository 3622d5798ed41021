"""The name that all tries of a job share."""

import json

import pytest

from flowcache.runtime import started_as as module
from flowcache.runtime.started_as import started_as, stop_job


@pytest.mark.parametrize(
    ("submission", "name"),
    [
        ("flowcache-7x2kq", "flowcache"),  # of a RayJob
        ("flowcache-b4zsw", "flowcache"),  # its retry
        ("flowcache-nightly-29409180-7x2kq", "flowcache-nightly-29409180"),  # of a RayCronJob's tick
        ("flowcache-0123456789abcdef-1", "flowcache-0123456789abcdef"),  # of `flowcache submit`
        ("flowcache-0123456789abcdef-12", "flowcache-0123456789abcdef"),
        ("raysubmit_AbCdEf", "raysubmit_AbCdEf"),
        ("big-night", "big-night"),  # given by hand
    ],
)
def test_what_is_new_with_each_try_is_no_part_of_it(monkeypatch, submission, name):
    config = {"runtime_env": {}, "metadata": {"job_submission_id": submission, "job_name": submission}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    assert started_as() == name


@pytest.mark.parametrize("config", [None, "", "{}", "[]", '{"metadata": {}}', '{"metadata": null}', "no json"])
def test_what_no_job_of_ray_runs_has_none(monkeypatch, config):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if config is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", config)
    assert started_as() is None


@pytest.mark.parametrize("fault", [None, RuntimeError("no such job"), ConnectionError("no dashboard")])
def test_the_job_that_is_stopped_is_this_ones(monkeypatch, fault):
    calls = []

    class Client:
        def stop_job(self, name):
            calls.append(name)
            if fault:
                raise fault

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setattr(module, "STOPPED_WITHIN", 0.0)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    stop_job()
    assert calls == []
    config = {"metadata": {"job_submission_id": "flowcache-7x2kq"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    stop_job()
    assert calls == ["flowcache-7x2kq"]
