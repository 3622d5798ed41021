"""Job files: how to render a manifest (YAML), with the command line's options on top."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from flowcache.errors import InputError, Problem, UnreadableError
from flowcache.inputs.deadline import ACCEPTED, deadline
from flowcache.inputs.duration import ACCEPTED as DURATIONS
from flowcache.inputs.duration import seconds
from flowcache.inputs.options import Device, Dtype, RunOptions, Tiling
from flowcache.inputs.output_url import ACCEPTED as ROOTS
from flowcache.inputs.output_url import fault
from flowcache.inputs.schema import (
    ACCEPTS,
    Defaults,
    Policy,
    RowDefaults,
    Written,
    faults,
    path_name,
    real,
    shown,
    text,
    whole,
)
from flowcache.inputs.shape import misshapen
from flowcache.inputs.urls import cause, opened
from flowcache.masking import masked_url
from flowcache.records import Weights

SIZE_LIMIT = 64 << 10  # bytes; pure Python takes seconds for more
JOB_ACCEPTS = ACCEPTS | {
    "manifest": "a path or URL of a file or folder, a pattern of such, or a list of these",
    "output": ROOTS,
    "gang": "a whole number from 1 to 1,024",
    "gangs": "a whole number from 1 to 100,000; without it as many as fit",
    "shard_weights": "true or false",
    "threads": "a whole number from 1 to 1,024",
    "device": "'auto', 'cpu' or 'cuda'",
    "dtype": "'auto', 'bf16' or 'fp32'",
    "weights": "'auto', 'int8' or 'fp8'",
    "vae_dtype": "'auto', 'bf16' or 'fp32'",
    "vae_tiling": "'auto', 'on' or 'off'",
    "compile": "true or false",
    "watermark": "'trustmark', 'videoseal' or module:function",
    "watermark_payload": "text of 1 to 256 characters",
    "finish": "module:function",
    "address": "the address of a Ray cluster, or 'auto' for the one on this machine",
    "keep_going": "true or false",
    "retries": "a whole number from 0 to 100",
    "infra_retries": "a whole number from 0 to 1,000",
    "segment_timeout": "seconds from 1 to 604,800",
    "exchange_timeout": "seconds from 1 to 604,800",
    "until": ACCEPTED,
    "grace": "seconds from 0 to 86,400",
    "wait_for_gpus": DURATIONS,
    "succeed_with": "a list of 3 and 5",
    "succeed_with.*": "3 (some videos failed) or 5 (stopped at the deadline)",
    "allow_private_media": "true or false",
    "webhook": "the http:// or https:// address of a web server",
    "defaults": "an object with negative_prompt, seconds or frames, width, height, fps, seed, guidance, steps, "
    "ar_step, segment, shift, addnoise_condition, base_num_frames, overlap_history, causal_block_size, fit, "
    "video_from, solver, special_tokens, prev_chunks_scale",
}


def readable(text: str) -> str:
    deadline(text)
    return text


def listed(value: Any) -> Any:
    """One text as a list of it."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def root(url: str) -> str:
    found = fault(url, typed=True)
    if found:
        raise PydanticCustomError("root", "{given} {found}", {"given": shown(masked_url(url)), "found": found})
    return url


class JobSpec(Written):
    """One run: what, where to, and how. Relative paths start from the current directory, as in a shell."""

    manifest: Annotated[
        tuple[Annotated[str, text(4096)], ...], Field(min_length=1, max_length=10_000), BeforeValidator(listed)
    ]
    output: Annotated[str, text(4096), AfterValidator(root)]
    model: Annotated[str, text(4096)] = "tiny-skyreels"
    policy: Policy = Policy(name="off")
    defaults: Defaults = Defaults()
    # From here on fields of RunOptions, which says what they mean, but for three.
    gang: Annotated[int, whole(1, 1024)] = RunOptions.gang
    gangs: Annotated[int, whole(1, 100_000)] | None = RunOptions.gangs
    shard_weights: bool = RunOptions.shard_weights
    threads: Annotated[int, whole(1, 1024)] = RunOptions.threads
    device: Device = RunOptions.device
    dtype: Dtype = RunOptions.dtype
    weights: Weights = RunOptions.weights
    vae_dtype: Dtype = RunOptions.vae_dtype
    vae_tiling: Tiling = RunOptions.vae_tiling
    compile: bool = RunOptions.compile
    watermark: Annotated[str, text(256)] | None = RunOptions.watermark
    watermark_payload: Annotated[str, text(256)] | None = RunOptions.watermark_payload
    finish: Annotated[str, text(256)] | None = RunOptions.finish
    address: Annotated[str, text(4096)] | None = RunOptions.address
    keep_going: bool = False  # render the good rows, record the bad ones
    retries: Annotated[int, whole(0, 100)] = RunOptions.retries
    infra_retries: Annotated[int, whole(0, 1000)] = RunOptions.infra_retries
    segment_timeout: Annotated[float, real(1, 604_800)] = RunOptions.segment_timeout
    exchange_timeout: Annotated[float, real(1, 604_800)] = RunOptions.exchange_timeout
    until: Annotated[str, text(64), AfterValidator(readable)] | None = None  # as written: read when the run begins
    grace: Annotated[float, real(0, 86_400)] = RunOptions.grace
    wait_for_gpus: Annotated[float, BeforeValidator(seconds), real(0, 604_800)] = RunOptions.wait_for_gpus
    # Exit codes of `render` that become 0, for what would start the job again: 5 by SIGTERM never does.
    succeed_with: Annotated[list[Literal[3, 5]], Field(max_length=2)] = []
    allow_private_media: bool = RunOptions.allow_private_media
    webhook: Annotated[str, text(4096)] | None = None  # is told of what becomes of the run and its videos

    def row_defaults(self) -> RowDefaults:
        """What holds for every row of the manifest that does not say otherwise."""
        return RowDefaults(model=self.model, policy=self.policy, **self.defaults.model_dump())

    def run_options(self, retry_failed: bool = False) -> RunOptions:
        """How to run: what the job says of it, `until` as the moment that it means now."""
        said = self.model_dump(include={option.name for option in fields(RunOptions)})
        until = None if self.until is None else deadline(self.until)
        return RunOptions(**said | {"until": until, "retry_failed": retry_failed})


def load_job(path: str | Path) -> JobSpec:
    """The job in a YAML file. InputError with every fault of it."""
    return merged(path)


def merged(path: str | Path | None = None, **options: Any) -> JobSpec:
    """The job in a YAML file, if any, where `options` (fields of JobSpec; None: not given) replace what it says.

    InputError with every fault of both.
    """
    given = {name: value for name, value in options.items() if value is not None}
    file = str(path) if path else "command line"
    written = _read(Path(path)) if path else {}
    if fault := misshapen(written):
        raise InputError([Problem(file, "", fault)])
    try:
        job = JobSpec.model_validate(written | given)
        if None in (job.defaults.seconds, job.defaults.frames):
            return job
        found = [(("defaults", "frames"), "is given together with seconds; accepted: one of the two")]
    except ValidationError as error:
        found = faults(error, JobSpec, JOB_ACCEPTS)
    raise InputError(
        [Problem("command line" if loc[0] in given else file, path_name(loc), message) for loc, message in found]
    )


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: `off` is a word and no boolean, and a key given twice is a fault.

    Without aliases, of which a few lines make gigabytes; a value that its own type refuses is a fault, too.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            said = f"*{event.anchor} repeats what stands elsewhere; accepted: values written out"
            raise yaml.constructor.ConstructorError(None, None, said, event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            said = f"{shown(node.value)} can't be read as {kind[:40]}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, f"{shown(node.value)} is no mapping", node.start_mark)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} is no name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != BOOL]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _read(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file; InputError where there is none."""

    def refused(message: str) -> InputError:
        return InputError([Problem(str(path), "", message)])

    try:
        with opened(str(path), 1 << 40) as stream:
            text = stream.read(SIZE_LIMIT + 1)
        if len(text) > SIZE_LIMIT:
            raise refused(f"is larger than {SIZE_LIMIT >> 10:,} KiB, too large for a job file")
        found = yaml.load(text.decode("utf-8-sig"), _Loader)
    except UnreadableError as error:
        raise refused(str(error)) from error
    except OSError as error:
        raise refused(cause(error)) from error
    except UnicodeDecodeError:
        raise refused("is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise refused(f"is broken YAML{line}: {str(error.problem)[:200]}") from None
    except (ValueError, TypeError, LookupError):  # of its own scanner
        raise refused("is broken YAML") from None
    except RecursionError:
        raise refused("is broken YAML: nested too deeply") from None
    except yaml.YAMLError as error:
        raise refused(f"is broken YAML: {(str(error).splitlines() or [''])[0][:200]}") from None
    if not isinstance(found, dict):
        raise refused(f"is {'empty' if found is None else shown(found)}; accepted: a mapping with manifest and output")
    return found
