"""The name of what started this process as a job on Ray, and starts it again where it fails."""

import json
import os
import re

# What is new with each try: of a RayJob five of these characters, by KubeRay; of `flowcache submit` a number.
TRY = re.compile(r"-(?:[bcdfghjklmnpqrstvwxz2456789]{5}|\d{1,4})$")


def started_as() -> str | None:
    """None for a process that no job of Ray runs."""
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return TRY.sub("", config["metadata"]["job_submission_id"])
    except (ValueError, KeyError, TypeError):
        return None
