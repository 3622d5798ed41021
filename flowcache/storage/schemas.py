"""The Parquet schemas of `meta/videos` and `meta/chunks`. docs/storage.md shows them; a test compares."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pyarrow as pa

from flowcache.records import Rate

LABELS = pa.map_(pa.string(), pa.string())
SHOTS = pa.list_(pa.struct([("prompt", pa.string()), ("frames", pa.int64()), ("cut", pa.bool_())]))
FILES = pa.list_(
    pa.struct(
        [("function", pa.string()), ("file", pa.string()), ("uri", pa.string()), ("sha256", pa.string()),
         ("bytes", pa.int64())]
    )
)  # fmt: skip
SECONDS = pa.map_(pa.string(), pa.float64())
HARDWARE = pa.map_(pa.string(), pa.string())
ADDED = (
    "decisions",
    "forwards",
    "kv_bytes",
    "flaw",
    "flawed_chunks",
    "hardware",
    "fps_num",
    "fps_den",
    "watermark",
    "finishes",
    "residuals",
    "residual_ratio",
    "budget",
    "calibrated_guidance",
    "calibrated_target",
    "predicted_error",
    "repeats",
    "dropped_forwards",
)  # columns that tables of older versions lack: null there


def completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns that came after it was written, all null."""
    for index, field in enumerate(schema):
        if field.name in ADDED and field.name not in table.schema.names:
            table = table.add_column(index, field, pa.nulls(table.num_rows, field.type))
    return table


def column(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable, {"description": meaning})


# Beside `fps`, which readers know as a whole number: null where that is exact, as in tables of older versions.
EXACTLY = (
    column("fps_num", pa.int64(), "numerator of the exact frame rate; null where fps is exact", True),
    column("fps_den", pa.int64(), "its denominator: 1001 of 24000/1001", True),
)


def rate_columns(fps: Rate) -> dict[str, int | None]:
    """A frame rate as both tables have it."""
    exact = isinstance(fps, int)
    return {
        "fps": round(fps),
        "fps_num": None if exact else fps.numerator,
        "fps_den": None if exact else fps.denominator,
    }


def rate_in(row: Mapping[str, Any]) -> Rate:
    """What `rate_columns` told."""
    return Fraction(row["fps_num"], row["fps_den"]) if row["fps_den"] else row["fps"]


VIDEOS = pa.schema(
    [
        column("run_id", pa.string(), "the run; also the partition"),
        column("video_id", pa.string(), "id of the request; null for a rejected row without a usable one", True),
        column(
            "status",
            pa.string(),
            "done, partial (unfinished), cancelled, failed (dead letter) or rejected (bad input)",
        ),
        column("error", pa.string(), "why it, or its finish, failed or was rejected; who cancelled it, and when", True),
        column("failed_segment", pa.int64(), "segment that spent its retries", True),
        column("prompt", pa.string(), "prompts of all shots, one a line", True),
        column("shots", SHOTS, "prompt, length in frames, and whether it starts fresh", True),
        column("negative_prompt", pa.string(), "what the video should not show", True),
        column("image", pa.string(), "URL of the first frame", True),
        column("video", pa.string(), "URL of the video that is continued", True),
        column("media_sha256", pa.string(), "of the image or video", True),
        column("end_image", pa.string(), "URL of the last frame", True),
        column("end_image_sha256", pa.string(), "of the last frame's file", True),
        column("width", pa.int64(), "pixels", True),
        column("height", pa.int64(), "pixels", True),
        column("fps", pa.int64(), "frames per second, to the nearest whole number", True),
        *EXACTLY,
        column("requested_frames", pa.int64(), "length asked for", True),
        column("seed", pa.int64(), "seed of all noise", True),
        column("guidance", pa.float64(), "classifier-free guidance scale", True),
        column("steps", pa.int64(), "denoising steps", True),
        column("ar_step", pa.int64(), "steps by which each chunk runs behind the one before it", True),
        column("priority", pa.int64(), "higher was rendered earlier", True),
        column("labels", LABELS, "free labels of the manifest row", True),
        column("model", pa.string(), "model as requested", True),
        column("model_digest", pa.string(), "sha256 over the files of its checkpoint", True),
        column("policy", pa.string(), "name of the cache policy", True),
        column("policy_json", pa.string(), "the whole policy as JSON", True),
        column("request_json", pa.string(), "the whole request as JSON", True),
        column("playlist", pa.string(), "HLS playlist, relative to the root", True),
        column("init", pa.string(), "init segment, relative to the root", True),
        column("segments", pa.int64(), "committed segments"),
        column("chunks", pa.int64(), "committed chunks"),
        column("frames", pa.int64(), "committed frames"),
        column("bytes", pa.int64(), "of all committed chunks"),
        column("steps_computed", pa.int64(), "transformer forwards that ran, both guidance branches"),
        column("steps_reused", pa.int64(), "transformer forwards that the cache saved"),
        column("forwards", pa.int64(), "all transformer forwards, those for K/V alone and given up included", True),
        column("repeats", pa.int64(), "renders of its segments that the quality guard gave up", True),
        column("residual_ratio", pa.float64(), "the largest of its chunks", True),
        column("flawed_chunks", pa.int64(), "chunks that look black, frozen or saturated", True),
        column("render_seconds", pa.float64(), "from start to finish of each segment, summed"),
        column("started", pa.float64(), "first segment's start, unix seconds", True),
        column("finished", pa.float64(), "last segment's finish, unix seconds", True),
        column("watermark", pa.string(), "what its frames were marked with", True),
        column("finishes", FILES, "what finishing functions made of it; uri: relative to the root", True),
    ]
)

CHUNKS = pa.schema(
    [
        column("run_id", pa.string(), "the run; also the partition"),
        column("video_id", pa.string(), "joins with videos"),
        column("segment", pa.int64(), "0-based, over the video"),
        column("chunk", pa.int64(), "0-based, over the video"),
        column("uri", pa.string(), "fMP4 fragment, relative to the root"),
        column("sha256", pa.string(), "of the fragment"),
        column("bytes", pa.int64(), "size of the fragment"),
        column("frames", pa.int64(), "video frames in it"),
        column("start_frame", pa.int64(), "first frame, over the video"),
        column("fps", pa.int64(), "frames per second, to the nearest whole number"),
        *EXACTLY,
        column("init", pa.string(), "init segment that the fragment needs before it, relative to the root"),
        column("steps_computed", pa.int64(), "transformer forwards that ran, both guidance branches"),
        column("steps_reused", pa.int64(), "transformer forwards that the cache saved"),
        column("forwards", pa.int64(), "all since the chunk before was finished, those for K/V alone included", True),
        column("flaw", pa.string(), "black, frozen or saturated, where its pixels look like that", True),
        column(
            "decisions",
            pa.string(),
            "a character a step: 1 computed, 0 reused, - not asked for; guidance branches joined by /",
            True,
        ),
        column("kv_bytes", pa.int64(), "K/V storage of the segment's window, on each rank", True),
        column("residuals", pa.list_(pa.float64()), "what each jump to the next computed step left out", True),
        column("residual_ratio", pa.float64(), "the largest of them to what calibration saw of that jump", True),
        column("budget", pa.float64(), "within which the segment was rendered in the end; 1: every step", True),
        column("calibrated_guidance", pa.float64(), "at which its schedule was calibrated", True),
        column("calibrated_target", pa.string(), "what its schedule was calibrated to: off or converged", True),
        column("predicted_error", pa.float64(), "of the calibrated schedule: J, a share of the latents' square", True),
        column("repeats", pa.int64(), "renders of the segment that the quality guard gave up", True),
        column("dropped_forwards", pa.int64(), "of those", True),
        column("denoise_seconds", pa.float64(), "transformer and sampler"),
        column("decode_seconds", pa.float64(), "latents to pixels"),
        column("encode_seconds", pa.float64(), "marking, and pixels to H.264"),
        column("upload_seconds", pa.float64(), "into the store"),
        column("segment_seconds", SECONDS, "timings of the whole segment, by phase"),
        column("attempt", pa.string(), "try that won the segment"),
        column("host", pa.string(), "machine of rank 0"),
        column("hardware", HARDWARE, "of rank 0: device, attention (torch's kernel for it), torch (version)", True),
        column("gang", pa.string(), "gang of actors that rendered it"),
        column("world_size", pa.int64(), "ranks in the gang"),
        column("started", pa.float64(), "the segment's start, unix seconds"),
        column("finished", pa.float64(), "the segment's finish, unix seconds"),
    ]
)

MANIFESTS = pa.schema(
    [
        column("run_id", pa.string(), "the run; also the partition"),
        column("generation", pa.int64(), "1: as the run began; then one more with each extension"),
        column("created", pa.float64(), "when it was added, unix seconds"),
        column("video_id", pa.string(), "id of the request; null for a rejected row without a usable one", True),
        column("change", pa.string(), "added, corrected, labelled (anew), unchanged, left (named no more) or rejected"),
        column("request_json", pa.string(), "the whole request as JSON, as it stood from then on", True),
        column("error", pa.string(), "why a row was rejected", True),
    ]
)

COMMANDS = pa.schema(
    [
        column("run_id", pa.string(), "the run; also the partition"),
        column("number", pa.int64(), "from 1, the order in which they are taken"),
        column("command", pa.string(), "pause, resume, stop, cancel, skip, prioritise or add; damaged: unreadable"),
        column("videos", pa.list_(pa.string()), "ids that it names, or that its manifest has"),
        column("priority", pa.int64(), "of prioritise", True),
        column("manifest", pa.string(), "of add: the manifest, as it was given", True),
        column("by", pa.string(), "who gave it: user@host"),
        column("at", pa.float64(), "when, unix seconds, by the clock there"),
        column("taken_by", pa.string(), "the driver that took it; null: nobody did yet", True),
        column("taken_at", pa.float64(), "when, unix seconds, by the clock there", True),
        column("outcome", pa.string(), "obeyed or refused", True),
        column("message", pa.string(), "what became of it, and why it was refused", True),
    ]
)
