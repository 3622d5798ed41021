"""Job files: how to render a manifest (YAML), with the command line's options on top."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from flowcache.errors import InputError, Problem
from flowcache.inputs.deadline import ACCEPTED, deadline
from flowcache.inputs.output_url import ACCEPTED as ROOTS
from flowcache.inputs.output_url import fault, without_secrets
from flowcache.inputs.schema import (
    ACCEPTS,
    Defaults,
    Policy,
    RowDefaults,
    Written,
    expand_policy,
    faults,
    path_name,
    real,
    shown,
    text,
    whole,
)

SIZE_LIMIT = 1 << 20  # bytes
JOB_ACCEPTS = ACCEPTS | {
    "manifest": "a path or URL of a .jsonl, .ndjson, .csv or .parquet file",
    "output": ROOTS,
    "gang": "a whole number from 1 to 1,024",
    "gangs": "a whole number from 1 to 100,000; without it as many as fit",
    "shard_weights": "true or false",
    "threads": "a whole number from 1 to 1,024",
    "device": "'auto', 'cpu' or 'cuda'",
    "dtype": "'auto', 'bf16' or 'fp32'",
    "vae_tiling": "'auto', 'on' or 'off'",
    "address": "the address of a Ray cluster, or 'auto' for the one on this machine",
    "keep_going": "true or false",
    "retries": "a whole number from 0 to 100",
    "infra_retries": "a whole number from 0 to 1,000",
    "segment_timeout": "seconds from 1 to 604,800",
    "exchange_timeout": "seconds from 1 to 604,800",
    "until": ACCEPTED,
    "grace": "seconds from 0 to 86,400",
    "defaults": "an object with negative_prompt, seconds or frames, width, height, fps, seed, guidance, steps, "
    "ar_step, segment",
}


def readable(text: str) -> str:
    deadline(text)
    return text


def root(url: str) -> str:
    found = fault(url, typed=True)
    if found:
        raise PydanticCustomError("root", "{given} {found}", {"given": shown(without_secrets(url)), "found": found})
    return url


class JobSpec(Written):
    """One run: what, where to, and how. Relative paths start from the current directory, as in a shell."""

    manifest: text(4096)
    output: Annotated[text(4096), AfterValidator(root)]
    model: text(4096) = "tiny-skyreels"
    policy: Annotated[Policy, BeforeValidator(expand_policy)] = Policy(name="off")
    defaults: Defaults = Defaults()
    gang: whole(1, 1024) = 1  # ranks that render one video together
    gangs: whole(1, 100_000) | None = None  # side by side; None: as many as fit
    shard_weights: bool = False  # each rank of a gang holds a part of the transformer
    threads: whole(1, 1024) = 1  # CPUs and torch threads of each rank
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"  # of transformer and text encoder
    vae_tiling: Literal["auto", "on", "off"] = "auto"
    address: text(4096) | None = None  # of a Ray cluster; None starts one here
    keep_going: bool = False
    retries: whole(0, 100) = 2  # of a segment whose work failed
    infra_retries: whole(0, 1000) = 5  # of a segment that lost its machine
    segment_timeout: real(1, 604_800) = 900.0  # seconds without a finished chunk that make a gang count as lost
    exchange_timeout: real(1, 604_800) = 300.0  # seconds that an exchange between the ranks of a gang may take
    until: Annotated[text(64), AfterValidator(readable)] | None = None  # no segment starts after that moment
    grace: real(0, 86_400) = 20.0  # seconds that segments under way get after a SIGTERM

    def row_defaults(self) -> RowDefaults:
        """What holds for every row of the manifest that does not say otherwise."""
        return RowDefaults(model=self.model, policy=self.policy, **self.defaults.model_dump())


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
    """YAML as people mean it: `off` is a word and no boolean, and a key given twice is a fault."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
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
        if path.stat().st_size > SIZE_LIMIT:
            raise refused(f"is larger than {SIZE_LIMIT >> 10:,} KiB, too large for a job file")
        found = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except FileNotFoundError:
        raise refused("does not exist") from None
    except OSError as error:
        raise refused(f"cannot be read ({(error.strerror or str(error)).lower()})") from error
    except UnicodeDecodeError:
        raise refused("is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise refused(f"is broken YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise refused(f"is broken YAML: {(str(error).splitlines() or [''])[0][:200]}") from None
    if not isinstance(found, dict):
        raise refused(f"is {'empty' if found is None else shown(found)}; accepted: a mapping with manifest and output")
    return found
