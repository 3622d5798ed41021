"""The keys of the store are in nothing that a run writes, logs or says when it fails."""

import io
import json
import traceback
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest

from flowcache.errors import StoreError
from flowcache.progress.events import Together
from flowcache.progress.json_lines import JsonProgress
from flowcache.progress.terminal import LogProgress
from flowcache.report.page import Limits, report_page
from flowcache.scheduler.protocols import GangFailure
from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store
from flowcache.storage.verify import status, verify
from tests.unit.scheduler.studio import Studio, request

KEY, SECRET = "AKIAKEYOFNOBODY", "hunter2/of+nobody"


@pytest.fixture
def night(moto):
    """A store that is reached by keys, and a run on it, one of whose videos dies of an error of that store."""
    url = f"s3://{moto.bucket()}/night"
    options = {"endpoint_url": moto.endpoint, "key": KEY, "secret": SECRET}
    elsewhere, said = Store("s3://no-such-bucket-here/x", **options), (io.StringIO(), io.StringIO())

    def fault(task):
        if task.request.id == "bad":
            try:
                elsewhere.put("k", b"v")
            except StoreError as error:
                raise GangFailure(0, "work", str(error), traceback.format_exc(), usable=True) from error

    studio = Studio(request("bad"), request("good"), store=Store(url, **options))
    studio.notes = Together(LogProgress(said[0]), JsonProgress(said[1]))
    summary = studio.run(fault=fault)
    return studio.store, summary, "".join(stream.getvalue() for stream in said)


def test_keys_reach_neither_objects_nor_logs_nor_reports(night):
    store, summary, log = night
    assert set(summary.failed) == {"bad"} and "no-such-bucket-here" in log
    letter = read_commits(store).dead_letters["bad"]
    assert "Traceback" in letter.log_tail and "does not exist" in letter.cause
    told = [asdict(summary), asdict(status(store)), asdict(verify(store, decode=False))]
    shown = [log, repr(store), json.dumps(told), report_page(store, None, Limits())]
    objects = {entry.key: store.get(entry.key) for entry in store.list()}
    tables = [pq.read_table(io.BytesIO(data)) for key, data in objects.items() if key.endswith(".parquet")]
    shown += [str(table.to_pylist()) for table in tables]
    assert len(tables) == 2 and "no-such-bucket-here" in "".join(shown[-2:])
    for secret in (KEY, SECRET):
        assert not [text for text in shown if secret in text]
        assert not [key for key, data in objects.items() if secret.encode() in data]
