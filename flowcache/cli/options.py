"""Options of the command line, each declared once. Those of a job have the job's names."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Manifest = Annotated[
    list[str] | None,
    typer.Argument(
        help="JSONL, CSV, Parquet, a text of prompts, a folder, a pattern; paths or URLs; -: standard input."
    ),
]
Output = Annotated[str | None, typer.Option(help="Folder or URL to write to. Given again: goes on there.")]
Job = Annotated[Path | None, typer.Option(help="Job spec (YAML); options given here override it.")]
Model = Annotated[str | None, typer.Option(help="For rows without one: a bundled name or checkpoint folder.")]
Policy = Annotated[
    str | None, typer.Option(help="For rows without one: off, dense, paper, paper:fast, flowcache, teacache ...")
]
Gang = Annotated[int | None, typer.Option(min=1, help="Ranks that render one video together.")]
Gangs = Annotated[
    int | None,
    typer.Option(min=1, help="Gangs side by side (an autoscaler is asked for them); else as many as fit."),
]
ShardWeights = Annotated[
    bool | None, typer.Option(help="Each rank holds a part of the model's weights: for models too large for one.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPUs and torch threads of each rank.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str | None, typer.Option(help="bf16, fp32 or auto: bf16 on GPUs, else fp32.")]
Weights = Annotated[str | None, typer.Option(help="Of the transformer, in memory: int8, fp8, or auto: as --dtype.")]
VaeDtype = Annotated[str | None, typer.Option(help="Of the VAE: bf16, fp32 or auto: as its official program on GPUs.")]
VaeTiling = Annotated[str | None, typer.Option(help="Decode in tiles: on, off or auto: where memory is short.")]
Compile = Annotated[bool | None, typer.Option(help="Compile the transformer's blocks (torch.compile).")]
Watermark = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Mark all frames: trustmark, videoseal or your own module:function."),
]
WatermarkPayload = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What the mark says, for anybody who can read it; else the video's id."),
]
Finish = Annotated[
    str | None,
    typer.Option(metavar="MODULE:FUNCTION", help="Call it once for each finished video; what it writes is kept."),
]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join; else a local Ray is started.")]
Until = Annotated[
    str | None, typer.Option(help="Start nothing after 07:00, or 2026-11-23T07:00; what is left: exit code 5.")
]
WaitForGpus = Annotated[
    str | None, typer.Option(help="Wait so long for the first GPU of a cluster whose nodes still come: 30m.")
]
SucceedWith = Annotated[
    list[int] | None, typer.Option(help="End with 0 in place of 3 (some failed) or 5 (deadline); can be given twice.")
]
KeepGoing = Annotated[bool | None, typer.Option(help="Render the good rows, record the bad ones.")]
AllowPrivateMedia = Annotated[
    bool | None,
    typer.Option("--allow-private-media", help="Media at http(s) may lie at private and local addresses, too."),
]
Webhook = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Told of events, signed with the environment's FLOWCACHE_WEBHOOK_SECRET."),
]

# Which rows are meant, what all are given, and how an output grows.
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Only these rows: ids or patterns such as 'cat-*'; can be repeated."),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="CONDITION", help="Only rows of which it holds: \"labels.team = 'a'\"; repeated: all hold."
    ),
]
Sample = Annotated[int | None, typer.Option(min=1, help="So many rows of those, drawn by content: always the same.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many of those.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="For every row, whatever it says; can be repeated."),
]
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="As --set seed=.")]
Steps = Annotated[int | None, typer.Option(min=1, max=1000, help="As --set steps=.")]
Guidance = Annotated[float | None, typer.Option(min=0, max=50, help="As --set guidance=.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="As --set width= and height=, such as 960x544.")]
ExtraOption = Annotated[
    str | None, typer.Option("--extra", help="Fields that no row has: refuse, labels (they become such) or ignore.")
]
Strict = Annotated[bool | None, typer.Option("--strict", help="What is doubtful of a row is an error, too.")]
Extend = Annotated[
    bool,
    typer.Option(
        "--extend", help="Rows that are new to the output join its run; those of which nothing is rendered may differ."
    ),
]
As = Annotated[
    str | None,
    typer.Option("--as", metavar="NEW_ID", help="With --extend: id of rows that differ from what is there; {id}-2."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, row by row, and do nothing.")]

RetryFailed = Annotated[bool, typer.Option(help="Try dead-lettered videos again.")]
StopOnBadInput = Annotated[
    bool, typer.Option(help="Bad input (exit code 2) stops the Ray job that runs this, so that nothing tries it again.")
]
Repair = Annotated[bool, typer.Option("--repair", help="Mend the output first, as flowcache repair does.")]
LogJson = Annotated[bool, typer.Option(help="As --progress json.")]
Progress = Annotated[
    Literal["auto", "bar", "plain", "json", "quiet"],
    typer.Option(help="Bars, lines, JSON lines or nothing; auto: bars on a terminal, lines elsewhere."),
]
Media = Annotated[Path | None, typer.Option(hidden=True, help="Written by submit: where it put media.")]

# Of `calibrate`; written as in `render`.
WalkingGang = Annotated[
    int | None, typer.Option("--gang", min=1, help="Ranks that walk one window together, as Ray actors; else here.")
]

# Of `plan`; three are written as in `render` but say something else.
PlanPolicy = Annotated[str | None, typer.Option(help="For rows without one, as in render.")]
PlanShardWeights = Annotated[bool | None, typer.Option(help="Each rank holds a part of the weights.")]
PlanUntil = Annotated[str | None, typer.Option(help="07:00, or a date and time: will it be done by then?")]
Gpus = Annotated[int | None, typer.Option(min=1, help="Ranks in all; else those of the job, or one gang.")]
Like = Annotated[
    str | None, typer.Option(help="Output of an earlier run on such machines: estimate time by its timings.")
]
Tflops = Annotated[
    float | None,
    typer.Option(min=1e-3, max=1e6, help="TFLOP/s that a GPU can do at most: estimate time by them."),
]
Efficiency = Annotated[float, typer.Option(min=0.01, max=1.0, help="What is reached of --tflops.")]
Link = Annotated[
    str, typer.Option(help="Between a node's GPUs: nvlink4, nvlink3, pcie5, pcie4, ethernet, or such as 300GB/s.")
]
GpuMemory = Annotated[str, typer.Option(help="Of a GPU, such as 80GB.")]
NodeGpus = Annotated[int, typer.Option(min=1, help="GPUs of a node, on which a whole gang has to lie.")]
