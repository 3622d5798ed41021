"""What a browser or a player is told of an object: what it is, and for how long it stays the same."""

from collections.abc import Mapping

TYPES = {
    "m3u8": "application/vnd.apple.mpegurl",
    "mp4": "video/mp4",
    "jpg": "image/jpeg",
    "m4s": "video/mp4",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "png": "image/png",
    "webp": "image/webp",
    "tar": "application/x-tar",
    "c2pa": "application/c2pa",
    "_SUCCESS": "application/json",
    "_STOPPED": "application/json",
    "_OWNER": "application/json",
}
UNKNOWN = "application/octet-stream"
FOR_GOOD = "max-age=31536000, immutable"
FIRST_ASK = "no-cache"  # and keep what has not changed


def content_type(key: str) -> str:
    """By the ending of its name, or all of a name without one."""
    return TYPES.get(key.rpartition("/")[2].rpartition(".")[2], UNKNOWN)


def cache_control(key: str) -> str:
    """Chunks bear their attempt in their name; all else may be written again, and a playlist grows."""
    return FOR_GOOD if key.endswith(".m4s") else FIRST_ASK


def of_s3(key: str) -> Mapping[str, object]:
    """As arguments of s3fs's `pipe_file`."""
    return {"ContentType": content_type(key), "CacheControl": cache_control(key)}


def of_google(key: str) -> Mapping[str, object]:
    return {"content_type": content_type(key), "fixed_key_metadata": {"cache_control": cache_control(key)}}


def of_azure(key: str) -> Mapping[str, object]:
    return {"content_settings": {"content_type": content_type(key), "cache_control": cache_control(key)}}
