"""Output roots that can't hold a night are refused, with what is accepted and without what is secret."""

import shutil
from contextlib import chdir

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.api import preview
from flowcache.cli.common import open_store
from flowcache.errors import InputError
from flowcache.families.registry import folder_of
from flowcache.inputs.job import merged
from flowcache.inputs.output_url import ACCEPTED, FOLDERS, SERVED, check_root, fault, split, within_checkpoints
from flowcache.storage.objects.schemes import SCHEMES as CLOUDS
from flowcache.storage.objects.schemes import scheme_of
from flowcache.storage.objects.store import Store

SCHEMES = ("s3", "s3a", "gs", "az", "memory")
NAME = st.text("abcXYZ019_.- é", min_size=1, max_size=8).map(str.strip).filter(lambda name: name.strip("."))
SECRET = st.text(max_size=20).map(lambda text: f"hunter2{text}")


def refusal(url: str) -> str:
    """What the store says, which the command line says too; what the job file's own rules say first is left out."""
    with pytest.raises(InputError) as caught:
        Store(url)
    with pytest.raises(InputError):
        open_store(url, None)
    with pytest.raises(InputError) as told:
        merged(manifest="m.jsonl", output=url)
    for error in (caught.value, told.value):
        assert error.exit_code == 2 and str(error).endswith(f"accepted: {ACCEPTED}") and "\n" not in str(error)
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
        *(
            (f"{scheme}://h/x", f"has the scheme {scheme.lower()}://, and served are s3://, gs://, az:// and file://")
            for scheme in (
                "hdfs",
                "zip",
                "ftp",
                "sftp",
                "http",
                "https",
                "github",
                "reference",
                "simplecache::s3",
                "S4",
            )
        ),
        ("ftp://user:secret@h/x", "holds credentials"),
        ("  ", "is empty"),
        ("/tmp/x ", "begins or ends with a space"),
        (" s3://bucket/x", "begins or ends with a space"),
        ("s3://bucket/x\n", "holds the control character U+000A"),
        ("/tmp/\0x", "holds the control character U+0000"),
        ("/tmp/\udc80", "holds the control character U+DC80"),
        (f"/tmp/{'é' * 128}/x", "has a part of more than 255 bytes"),
        ("x/" * 1600, "is longer than 3,000 bytes"),
        ("s3://bucket" + "/abcde" * 130, "is longer than 700 bytes"),
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
    path = path.rstrip()
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
    with pytest.raises(InputError, match="has a query|holds credentials|holds the control|ends with a space") as caught:
        check_root(f"{scheme}://bucket/{name}{mark}{secret}")
    assert "hunter2" not in str(caught.value)


@given(st.sampled_from(["s3:/", "s3://", "gs://", "file://", "https://"]), st.sampled_from(["", "AKIA"]), SECRET, NAME)
def test_credentials_are_never_shown_whatever_is_in_them(scheme, user, secret, name):
    with pytest.raises(InputError, match="holds credentials; they belong in the environment") as caught:
        check_root(f"{scheme}{user}:{secret}@bucket/{name}")
    assert "hunter2" not in str(caught.value) and "bucket" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "bucket"),
    [("s3://", ""), ("s3://ab/x", "ab"), ("gs://Night/x", "Night"), ("az://a--b", "a--b"), ("S3://né/x", "né")],
)
def test_a_bucket_that_cannot_be_is_refused(url, bucket):
    with pytest.raises(InputError, match=f"{bucket!r} is no valid (bucket|container) name; it needs (at least )?3"):
        Store(url)


def test_every_cloud_that_is_served_is_known_by_its_scheme():
    clouds = {f"{prefix}://" for scheme in CLOUDS for prefix in scheme.prefixes}
    assert clouds == {*SERVED} - {*FOLDERS, "memory://"}


PIECES = st.sampled_from([
    *SERVED, *map(str.upper, SERVED), "hdfs://", "zip://", "ftp://", "x://", "://", ":/", ":", "//", "/", "..", ".",
    "~", "@", "?a", "#", "*", "[", "%20", "\\", " ", "\n", "\0", "\ud800", "\u202e", "\u2028", "é", "bucket",
    "container@account", "a" * 256, "x/" * 400,
])  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=5), max_size=6).map("".join))
def test_whatever_is_given_is_refused_or_is_a_store(tmp_path_factory, url):
    """Folders are written to, where they lie below the current one; clouds are not asked."""
    try:
        store = Store(url)
    except InputError as error:
        assert error.exit_code == 2 and "\n" not in str(error)
        return
    folder = "://" not in store.url
    if folder and not split(url)[0] and not url.startswith(("/", "~")) and not {".."}.intersection(url.split("/")):
        with chdir(tmp_path_factory.mktemp("odd")):
            Store(url).probe()
    elif store.url.startswith("memory://"):
        store.probe()
    else:
        assert folder or scheme_of(store.url) in CLOUDS


def test_a_run_does_not_write_into_a_checkpoint_that_it_renders_with(tmp_path, monkeypatch):
    """Its documents and texts would count as files of the checkpoint, and the same command would go on with another."""
    folder = shutil.copytree(folder_of("tiny-magi"), tmp_path / "model")
    monkeypatch.chdir(folder)
    for output in ("out", ".", f"file://{folder}/a/b", str(tmp_path / "other" / ".." / "model")):
        with pytest.raises(
            InputError, match=f"output: '{output}' lies within the checkpoint {folder}, .*outside of it"
        ):
            preview([{"prompt": "a red circle", "model": str(folder)}], output=output)
    assert within_checkpoints("s3://model/out", ["model"]) == within_checkpoints(f"{folder}s", [str(folder)]) == []
