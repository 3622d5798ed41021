"""The table: its schema, what is refused, and that a row is on disk as soon as it is there."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowcache.bench.names import Entry
from flowcache.bench.table import BEFORE, FILE, SCHEMA, BenchTable, of_entries
from flowcache.errors import InputError
from tests.unit.bench.made import row

COMMON = {"digest": "abc", "seed": 3, "sizes": (64, 64)}
COLUMNS = (
    "model prompt seed policy setting chunk_forwards off_forwards flops seconds kv_bytes psnr ssim cvvdp "
    "psnr_converged caption_right chunks psnr_first psnr_last colour_drift caption_first caption_last"
)


def test_the_columns_are_those_that_are_promised():
    assert SCHEMA.names == COLUMNS.split()
    kinds = {name: str(SCHEMA.field(name).type) for name in ("seed", "flops", "psnr", "cvvdp", "caption_right")}
    assert kinds == {"seed": "int64", "flops": "int64", "psnr": "double", "cvvdp": "double", "caption_right": "bool"}


def test_each_row_is_there_as_soon_as_it_is_added(tmp_path):
    table = BenchTable(tmp_path, COMMON)
    for seed in range(3):
        table.add(row(seed, "off"))
        assert pq.read_table(tmp_path / FILE).num_rows == seed + 1
    again = BenchTable(tmp_path, COMMON)
    assert again.rows == table.rows and ("prompt 1", 1, Entry("off")) in again
    assert ("prompt 1", 1, Entry("paper", "fast")) not in again and ("another", 1, Entry("off")) not in again
    assert again.row(("prompt 2", 2, Entry("off"))) == row(2, "off")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert pq.read_schema(tmp_path / FILE).remove_metadata() == SCHEMA


def test_nulls_stay_nulls(tmp_path):
    BenchTable(tmp_path, COMMON).add(row(0, "off", psnr=None, caption_right=None, psnr_converged=None))
    (found,) = pq.read_table(tmp_path / FILE).to_pylist()
    assert (found["psnr"], found["cvvdp"], found["caption_right"], found["psnr_converged"]) == (None,) * 4


def test_a_table_from_before_there_were_kv_to_choose_is_gone_on_with(tmp_path):
    """With the columns of then, and none of those that came since."""
    metadata = {b"flowcache.bench": json.dumps(COMMON).encode()}
    assert BEFORE.names == COLUMNS.split()[:15]
    pq.write_table(pa.Table.from_pylist([vars(row(0, "off"))], schema=BEFORE.with_metadata(metadata)), tmp_path / FILE)
    table = BenchTable(tmp_path, COMMON)
    assert table.rows == [row(0, "off")] and table.rows[0].chunks is None
    table.add(row(0, "kv-recent", "2", chunks=20, psnr_last=30.0))
    assert BenchTable(tmp_path, COMMON).rows == table.rows and pq.read_table(tmp_path / FILE).num_rows == 2


def test_rows_of_another_run_are_not_mixed_with_these(tmp_path):
    BenchTable(tmp_path, COMMON).add(row(0, "off"))
    with pytest.raises(InputError) as refused:
        BenchTable(tmp_path, {**COMMON, "digest": "xyz", "seed": 4})
    assert [problem.field for problem in refused.value.problems] == ["digest", "seed"]
    assert "is 'abc' there; accepted: 'xyz', or another --out" in str(refused.value)


def other(path):
    pq.write_table(pa.table({"model": ["m"]}), path)


def of_a_later_release(path):
    metadata = {b"flowcache.bench": json.dumps(COMMON).encode()}
    pq.write_table(pa.table({"model": ["m"], "new": [1]}).replace_schema_metadata(metadata), path)


def with_metadata(told: bytes):
    def make(path):
        pq.write_table(pa.Table.from_pylist([], schema=SCHEMA.with_metadata({b"flowcache.bench": told})), path)

    return make


FOREIGN = [with_metadata(told) for told in (b"null", b'"x"', b"3", b"[" * 100_000)]


@pytest.mark.parametrize("make", [lambda path: path.write_bytes(b"PAR1 torn"), other, of_a_later_release, *FOREIGN])
def test_what_is_no_such_table_is_refused(tmp_path, make):
    make(tmp_path / FILE)
    with pytest.raises(InputError, match="is no table of flowcache bench"):
        BenchTable(tmp_path, COMMON)


def test_rows_of_a_setting_are_in_the_order_of_their_prompts():
    rows = [row(1, "off"), row(0, "off"), row(1, "paper", "fast"), row(0, "paper", "fast")]
    found = of_entries(rows)
    assert [entry.label for entry in found] == ["off", "paper:fast"]
    assert [each.seed for each in found[Entry("paper", "fast")]] == [0, 1]


@pytest.mark.parametrize(
    "spoilt", [{"psnr": float("nan")}, {"psnr": float("inf")}, {"off_forwards": 0}, {"flops": None}]
)
def test_rows_that_nobody_measured_are_refused(tmp_path, spoilt):
    BenchTable(tmp_path, COMMON).add(row(0, "off"))
    made = pq.read_table(tmp_path / FILE)
    changed = pa.Table.from_pylist([each | spoilt for each in made.to_pylist()], schema=made.schema)
    pq.write_table(changed, tmp_path / FILE)
    with pytest.raises(InputError, match="is no table of .* .the row of off: on 'prompt 0' can't have been"):
        BenchTable(tmp_path, COMMON)
