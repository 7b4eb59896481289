"""What engines say before they end, and what it means. The first line that fits a row is the evidence."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Saying(NamedTuple):
    """A line of an engine's journal; `weight` tells how surely it is the cause, of 100."""

    name: str
    pattern: re.Pattern[str]
    weight: int
    cause: str
    fix: str


# Written from what is known of these errors and from reports to vllm-project/vllm, whose numbers stand beside a row.
# The wording was not compared with the sources of every release.
SAYINGS: Final = (
    Saying(
        "wrong-flag",
        re.compile(r"unrecognized arguments|error: argument --|Extra inputs are not permitted"),
        95,
        "an argument that this release of vLLM does not have",
        "take it out of extra_args, or run the release that has it: docs/vllm-releases.md",
    ),
    Saying(
        "context-too-long",
        re.compile(
            r"larger than the (maximum number of tokens|available KV cache)|KV cache is needed, which is larger"
        ),
        95,
        "a request of max_model_len does not fit the KV cache",
        "lower max_model_len to the length that the line names; rackserve capacity shows what fits",
    ),
    Saying(
        "no-cache-memory",
        re.compile(r"No available memory for the cache blocks"),
        94,
        "the weights leave nothing for the KV cache",
        "raise gpu_memory_utilization, spread the model over more gpus, or take a quantized model",
    ),
    Saying(
        "gpu-shared",
        re.compile(r"Free memory on device .* is less than desired GPU memory utilization"),
        94,
        "something else holds memory of the GPU: another program, or an engine that outlived its unit",
        "nvidia-smi names the process; end it, or lower gpu_memory_utilization of the two to 1 together",
    ),
    # 10643, 55827
    Saying(
        "starts-at-once",
        re.compile(r"Error in memory profiling|Initial free memory .* current free memory"),
        93,
        "two instances started at once on one GPU and measured each other's memory",
        "run rackserve apply: its units start the instances of one GPU one after the other",
    ),
    Saying(
        "driver-too-old",
        re.compile(r"driver version is insufficient|unsupported display driver|Driver/library version mismatch"),
        96,
        "the GPU driver does not fit the CUDA of this release",
        "install the driver that docs/vllm-releases.md names for it and boot the host",
    ),
    Saying(
        "no-kernel-image",
        re.compile(r"no kernel image is available for execution"),
        95,
        "the wheel has no code for this GPU's architecture",
        "run a release that supports the GPU",
    ),
    Saying(
        "glibc",
        re.compile(r"version `GLIBC_[\d.]+' not found"),
        96,
        "the host's glibc is older than the wheel needs",
        "run a release whose glibc fits (docs/vllm-releases.md), or a newer Debian",
    ),
    Saying(
        "model-not-there",
        re.compile(
            r"LocalEntryNotFoundError|offline mode is enabled|OfflineModeIsEnabled|couldn't connect to 'https?://"
        ),
        94,
        "the model is not in the host's cache, and there is no network to fetch it from",
        "add it to models in bundle.yml, build, import, rackserve apply",
    ),
    Saying(
        "disk-full",
        re.compile(r"No space left on device"),
        92,
        "a disk of the host is full",
        "see docs/alerts.md#diskfull",
    ),
    # 44548
    Saying(
        "cache-not-writable",
        re.compile(r"getpwuid|Permission denied: '[^']*(\.cache|\.triton|torchinductor|vllm)"),
        90,
        "the engine cannot write to its cache",
        "run rackserve apply: its unit gives the engine folders of its own",
    ),
    Saying(
        "socket-path",
        re.compile(r"is longer than 107 characters"),
        95,
        "the path of an internal socket is too long",
        "give the instance a shorter name; leave TMPDIR and VLLM_RPC_BASE_PATH alone",
    ),
    Saying(
        "port-taken",
        re.compile(r"[Aa]ddress already in use"),
        90,
        "another process listens where this instance wants to",
        "ss -lptn names it; end it, or set another port",
    ),
)
_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory")
_SERVES = re.compile(r"Application startup complete|Uvicorn running on|Started server process")
_DOWNLOADS = re.compile(r"Downloading|Fetching \d+ files|Time spent downloading weights")
_PHASES: Final = (
    ("loading the weights", re.compile(r"Loading (?:model )?weights took ([\d.]+) s")),
    ("compiling", re.compile(r"torch\.compile (?:takes|took) ([\d.]+) s")),
    ("capturing CUDA graphs", re.compile(r"Graph capturing finished in ([\d.]+) s")),
)


def memory_ran_out(journal: tuple[str, ...]) -> tuple[str, bool] | None:
    """Return the line that says that the GPU's memory ran out, and whether the engine had served before it."""
    served = False
    for line in journal:
        served = served or bool(_SERVES.search(line))
        if _OUT_OF_MEMORY.search(line):
            return line, served
    return None


def slow_phase(journal: tuple[str, ...]) -> tuple[str, float] | None:
    """Return the longest part of the last start and its seconds; a download has none that are known."""
    if any(_DOWNLOADS.search(line) for line in journal):
        return "downloading the model", 0.0
    found = {name: float(hit[1]) for line in journal for name, pattern in _PHASES if (hit := pattern.search(line))}
    return max(found.items(), key=lambda phase: phase[1]) if found else None
