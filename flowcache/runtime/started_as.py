"""What started this process as a job on Ray, and starts it again where it fails."""

import json
import os
import re
import time
from contextlib import suppress

# What is new with each try: of a RayJob five of these characters, by KubeRay; of `flowcache submit` a number.
TRY = re.compile(r"-(?:[bcdfghjklmnpqrstvwxz2456789]{5}|\d{1,4})$")


STOPPED_WITHIN = 60.0  # seconds, the most that it takes Ray to pass a stop on to the job's process


def started_as() -> str | None:
    """Its name; None for a process that no job of Ray runs."""
    name = _submission()
    return None if name is None else TRY.sub("", name)


def stop_job() -> None:
    """Ray ends this process, its job becomes STOPPED: the one end without success after which KubeRay tries no more.

    Comes back where no job of Ray runs this, or Ray does not stop it.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    name = _submission()
    if name is not None:
        with suppress(OSError, RuntimeError, ValueError, AuthenticationError):
            JobSubmissionClient().stop_job(name)
            time.sleep(STOPPED_WITHIN)


def _submission() -> str | None:
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return str(config["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return None
