"""Credentials in URLs reach neither the store nor the log, whatever fails."""

import io

from benchmarks.simulated import connector
from flowcache.progress.terminal import LogProgress
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage.commits import read_commits
from tests.unit.scheduler.studio import Studio, request

SECRET = "hunter2"
URLS = (
    f"https://user:{SECRET}@host/start.png",
    f"https://bucket.s3.amazonaws.com/end.png?X-Amz-Signature={SECRET}&X-Amz-Date=1",
)


def test_nothing_that_is_written_holds_a_secret():
    def fault(task):
        if task.segment.index == 1:
            cause = f"ClientError: cannot read {URLS[0]} nor {URLS[1]}"
            raise GangFailure(0, "work", cause, f"Traceback ...\n{cause}\n", usable=True)

    media = {"image": URLS[0], "end_image": URLS[1], "media_sha256": "a" * 64, "end_image_sha256": "b" * 64}
    studio, log = Studio(request("a", **media)), io.StringIO()
    studio.notes = LogProgress(log)
    assert studio.run(fault=fault).exit_code == 3
    letter = read_commits(studio.store).dead_letters["a"]
    assert letter.cause == "ClientError: cannot read https://***@host/start.png nor " + (
        "https://bucket.s3.amazonaws.com/end.png?***"
    )
    assert letter.request["image"] == "https://***@host/start.png" and letter.cause in letter.log_tail
    everything = b"".join(studio.store.get(entry.key) for entry in studio.store.list())
    assert SECRET.encode() not in everything and SECRET not in log.getvalue()
    assert studio.run(retry_failed=True).exit_code == 0  # the same run, although the record holds no signatures


def test_a_signature_that_was_renewed_is_the_same_run():
    media = {"image": f"https://host/a.png?sig={SECRET}", "media_sha256": "a" * 64}
    studio = Studio(request("a", **media))
    studio.run()
    again = Studio(request("a", **{**media, "image": "https://host/a.png?sig=other"}), store=studio.store)
    assert again.run(connect=connector(again.providers, 1)).rendered == 0
