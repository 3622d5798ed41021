"""A whole run on each kind of store: crash, rerun, verify, tables opened from where they lie."""

import pytest

from flowcache.report.page import Limits, report_page
from flowcache.storage.commits import read_commits
from flowcache.storage.joined import join_video
from flowcache.storage.objects.store import Store
from flowcache.storage.status import status
from flowcache.storage.tables import chunk_rows
from flowcache.storage.verify import verify
from tests.unit.storage.faults import Crash, FaultyStore
from tests.unit.storage.samples import Studio, outcome, request

REQUESTS = (request("cat", 2), request("dog", 1))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    studio = Studio(Store(str(tmp_path_factory.mktemp("undisturbed"))), REQUESTS)
    studio.run()
    return outcome(studio.store)


def test_a_run_that_was_killed_and_rerun_is_whole(store, undisturbed, tmp_path):
    for point, after in ((4, True), (5, False), (9, True)):
        with pytest.raises(Crash):
            Studio(FaultyStore(store, point, after), REQUESTS).run()
        assert verify(store).sound
    Studio(store, REQUESTS).run()
    assert outcome(store) == undisturbed
    report = verify(store)
    assert report.sound, report.problems
    assert (report.counts["done"], report.counts["chunks"], report.counts["rows"]) == (2, 6, 8)
    assert status(store).count("done") == 2
    assert report_page(store, None, Limits()).count("<video ") == 2
    assert len(join_video(store, "cat")) > 1000


def test_pyarrow_reads_the_tables_from_s3(server):
    from pyarrow.dataset import dataset
    from s3fs import S3FileSystem

    store = server.store()
    Studio(store, REQUESTS).run()
    files = S3FileSystem(skip_instance_cache=True, **server.options())
    table = dataset(store.url.removeprefix("s3://") + "/meta/chunks", filesystem=files, partitioning="hive").to_table()
    assert table.num_rows == 6
    assert table.column("sha256").to_pylist() == [row["sha256"] for row in chunk_rows(read_commits(store))]
