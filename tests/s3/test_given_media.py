"""A picture on a store that refuses it: the store's fault, unless it says that there is none, or gives another."""

import hashlib
import io
import json
import uuid
from dataclasses import replace

import pytest
from PIL import Image

from flowcache import api
from flowcache.errors import InputError, StoreError
from flowcache.inputs.sandbox import Sandbox
from flowcache.inputs.schema import RowDefaults
from flowcache.storage.commits import list_commits, read_commits
from flowcache.storage.objects.store import Store
from flowcache.worker.given import picture
from tests.s3.nights import Night, where
from tests.soak import spoils
from tests.unit.scheduler.studio import SPEC

pytestmark = pytest.mark.usefixtures("quick")
ALL = "put create get head list delete"
REFUSED = {
    "AccessDenied": (spoils.refuse(403, "AccessDenied"), "cannot be read (access denied)"),
    "SlowDown": (spoils.refuse(503, "SlowDown"), "cannot be read"),
    "NoSuchBucket": (spoils.refuse(404, "NoSuchBucket"), "cannot be read (NoSuchBucket)"),
    "QuotaExceeded": (spoils.refuse(403, "QuotaExceeded"), "cannot be read"),
    "a login page": (spoils.page(404, b"<html>log in</html>"), "cannot be read"),
    "no answer": (spoils.lost_request, "cannot be read"),
    "half an answer": (spoils.half, "cannot be read"),
}
FAST = {"AccessDenied", "half an answer"}
NAMES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in REFUSED]


def png(grey: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (16, 16), grey).save(data, "PNG")
    return data.getvalue()


class Pictured(Night):
    """v1 begins with a picture that lies in the bucket, beside the night."""

    def __init__(self, server, proxy):
        super().__init__(server, proxy)
        self.folder = Store(f"s3://{server.shared}/given/{uuid.uuid4().hex}", **server.options())
        self.folder.put("a.png", png(9))
        self.url = self.folder.uri("a.png")

    def reads(self, task) -> None:
        super().reads(task)
        if (task.request.id, task.segment.index) == ("v1", 0):
            given = replace(task.request, image=self.url, media_sha256=hashlib.sha256(png(9)).hexdigest())
            with Sandbox(self.store.options, most=1) as sandbox:
                assert picture(given, SPEC, sandbox).shape == (1, given.height, given.width, 3)


@pytest.fixture
def night(moto, proxy):
    return Pictured(moto, proxy)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_store_refuses_is_its_fault_and_a_rerun_goes_on(night, name):
    spoil, why = REFUSED[name]
    ended, told = night.run(where(ALL, "given/", spoil))
    assert ended == 1 and night.url in told and why in told, told
    assert list_commits(night.direct).done == {"v0", "v2", "v3"}
    night.unblamed()
    assert night.run() == (0, "") and list_commits(night.direct).done == {"v0", "v1", "v2", "v3"}


@pytest.mark.parametrize("now", [None, png(10), b"no picture"], ids=["gone", "another", "none"])
def test_what_a_store_shows_to_be_gone_or_another_is_its_videos_fault(night, now):
    if now is None:
        night.folder.delete("a.png")
    else:
        night.folder.put("a.png", now)
    assert night.run() == (3, "")
    (letter,) = read_commits(night.direct).dead_letters.values()
    assert (letter.video_id, letter.kind) == ("v1", "work") and night.url in letter.cause
    assert ("does not exist" if now is None else "is not the file any more") in letter.cause


@pytest.mark.parametrize("what", ["the manifest", "a picture"])
def test_before_work_is_begun_only_what_passes_is_nobodys_fault(night, tmp_path, what):
    row = {"id": "a", "prompt": "a red circle", "image": night.url}
    night.folder.put("m.jsonl", json.dumps(row).encode())
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps(row))
    named = night.folder.uri("m.jsonl") if what == "the manifest" else str(manifest)
    access = night.store.options

    def checked(spoil):
        night.proxy.judge = where(ALL, r"m\.jsonl" if what == "the manifest" else r"a\.png", spoil)
        return api.check(named, RowDefaults(), access=access)

    with pytest.raises(StoreError, match="cannot be read .*nothing was begun") as told:
        checked(spoils.refuse(503, "SlowDown"))
    assert told.value.passing and night.folder.url in str(told.value)
    try:
        good, problems, *_ = checked(spoils.refuse(403, "AccessDenied"))
    except InputError as error:
        good, problems = [], error.problems
    assert not good and "access denied" in str(problems[0])
