"""The changelog's newest release is this one."""

import re
from pathlib import Path

import flowcache

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()


def test_releases_go_down_to_the_first_from_this_one():
    releases = re.findall(r"^## (\d+)\.(\d+)\.(\d+) \(\d{4}-\d\d-\d\d\)$", TEXT, re.M)
    assert ".".join(releases[0]) == flowcache.__version__ and releases[-1] == ("0", "1", "0")
    numbers = [tuple(map(int, release)) for release in releases]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == len(re.findall(r"^## \d", TEXT, re.M))
    kinds = set(re.findall(r"^### (.*)$", TEXT, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
