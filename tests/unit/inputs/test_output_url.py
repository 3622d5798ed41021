"""Output roots that can't hold a night are refused, with what is accepted and without what is secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.cli.common import open_store
from flowcache.errors import InputError
from flowcache.inputs.job import merged
from flowcache.inputs.output_url import ACCEPTED, check_root, fault
from flowcache.storage.objects.store import Store

SCHEMES = ("s3", "s3a", "gs", "az", "memory")
NAME = st.text("abcXYZ019_.- é", min_size=1, max_size=8).filter(lambda name: name.strip(".") and name.strip())
SECRET = st.text(max_size=20).map(lambda text: f"hunter2{text}")


def refusal(url: str) -> str:
    """What the store says, which the command line says too."""
    with pytest.raises(InputError) as caught:
        Store(url)
    with pytest.raises(InputError):
        open_store(url, None)
    with pytest.raises(InputError) as told:
        merged(manifest="m.jsonl", output=url)
    assert all(
        error.exit_code == 2 and str(error).endswith(f"accepted: {ACCEPTED}") for error in (caught.value, told.value)
    )
    return f"{caught.value}\n{told.value}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket//prefix", "part that is empty (//)"),
        ("s3:///prefix", "part that is empty (//)"),
        ("s3://bucket/a/../b", "'.' or '..'"),
        ("s3://bucket/prefix?versionId=3", "a query (such as versionId)"),
        ("s3://bucket/prefix#part", "or a fragment"),
        ("file://host/x", "names a host"),
        ("file:/x", "has one slash"),
        ("s3:/bucket/x", "has one slash"),
        (r"C:\x", "a drive of Windows"),
        ("D:/x", "a drive of Windows"),
        ("s3://key:secret@bucket/x", "in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), in a profile"),
        ("gs://token@bucket/x", "as its instance role"),
    ],
)
def test_a_root_that_cannot_hold_a_night_is_refused(url, said):
    assert said in refusal(url)


def test_memory_is_for_one_process_and_not_for_the_command_line():
    assert Store("memory://night").url == "memory://night"
    for call in (lambda: open_store("memory://x", None), lambda: merged(manifest="m.csv", output="memory://x")):
        with pytest.raises(InputError, match=f"memory of one process and is gone with it; accepted: {ACCEPTED}$"):
            call()


@pytest.mark.parametrize("url", ["abfs://container@account.dfs.core.windows.net/x", "s3://bucket/a@b", "s3://b/p/"])
def test_what_only_looks_like_it_is_accepted(url):
    assert fault(url, typed=True) is None


@given(st.text("abC:/#?@. ", max_size=12))
def test_a_path_is_a_path_whatever_is_in_it(path):
    assert fault(f"/{path}") is None and fault(f"./{path}") is None


@given(st.sampled_from(SCHEMES), st.lists(NAME, min_size=1, max_size=4))
def test_names_below_a_scheme_are_accepted(scheme, names):
    assert fault(f"{scheme}://{'/'.join(names)}") is None


@given(
    st.sampled_from(SCHEMES),
    st.lists(NAME, min_size=1, max_size=3),
    st.sampled_from(["", ".", ".."]),
    st.lists(NAME, min_size=1, max_size=3),
)
def test_a_part_that_is_no_name_is_refused_wherever_it_stands(scheme, before, part, after):
    assert "has a part" in fault(f"{scheme}://{'/'.join([*before, part, *after])}")


@given(st.sampled_from(SCHEMES), NAME, st.sampled_from("?#"), SECRET)
def test_queries_and_fragments_are_refused_and_not_shown(scheme, name, mark, secret):
    with pytest.raises(InputError, match="has a query|holds credentials") as caught:
        check_root(f"{scheme}://bucket/{name}{mark}{secret}")
    assert "hunter2" not in str(caught.value)


@given(st.sampled_from(["s3:/", "s3://", "gs://", "file://", "https://"]), st.sampled_from(["", "AKIA"]), SECRET, NAME)
def test_credentials_are_never_shown_whatever_is_in_them(scheme, user, secret, name):
    with pytest.raises(InputError, match="holds credentials; they belong in the environment") as caught:
        check_root(f"{scheme}{user}:{secret}@bucket/{name}")
    assert "hunter2" not in str(caught.value) and "bucket" in str(caught.value)
