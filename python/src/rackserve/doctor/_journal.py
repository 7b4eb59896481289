"""Error lines of engines and their causes. The first line that matches a row is the evidence."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class JournalPattern(NamedTuple):
    """A pattern for lines of an engine's journal; `weight` is the likelihood of the cause in percent."""

    name: str
    pattern: re.Pattern[str]
    weight: int
    cause: str
    fix: str


# From reports to vllm-project/vllm, whose numbers stand beside a row. Compared with the sources of vLLM 0.32.0's CPU
# wheel and what it brings: context-too-long (vllm/v1/core/kv_cache_utils.py:1033), no-cache-memory (same, :1011),
# gpu-shared (vllm/v1/worker/utils.py:742), concurrent-starts (vllm/v1/worker/gpu_worker.py:658, 720), model-missing
# (huggingface_hub/errors.py:86, transformers/utils/hub.py:621), weights-corrupt (safetensors, run with a broken file),
# the phases of a start (vllm/model_executor/model_loader/default_loader.py:502, vllm/compilation/monitor.py:20,
# vllm/v1/worker/gpu_model_runner.py:6582). Messages of drivers and CUDA were not: no GPU's journal was at hand.
JOURNAL_PATTERNS: Final = (
    JournalPattern(
        "wrong-flag",
        re.compile(r"unrecognized arguments|error: argument --|Extra inputs are not permitted"),
        95,
        "an argument that this release of vLLM does not have",
        "take it out of extra_args, or run the release that has it: docs/reference/vllm-releases.md",
    ),
    # systemd's messages about the unit, in its journal: systemd 252, src/core/service.c and unit.c.
    JournalPattern(
        "host-oom",
        re.compile(r"A process of this unit has been killed by the OOM killer"),
        94,
        "the host's memory ran out",
        "weights, KV cache and work space of all instances have to fit the host's memory",
    ),
    JournalPattern(
        "killed",
        re.compile(r"Main process exited, code=killed, status=9/KILL"),
        60,
        "a signal, perhaps of the host's OOM killer, killed the engine's process",
        "journalctl -k for the OOM killer; who else works on the host?",
    ),
    JournalPattern(
        "context-too-long",
        re.compile(
            r"larger than the (maximum number of tokens|available KV cache)|KV cache is needed, which is larger"
        ),
        95,
        "a request of max_model_len does not fit the KV cache",
        "lower max_model_len to the length that the line names; rackserve capacity shows what fits",
    ),
    JournalPattern(
        "no-cache-memory",
        re.compile(r"No available memory for the cache blocks"),
        94,
        "the weights leave nothing for the KV cache",
        "raise gpu_memory_utilization, spread the model over more gpus, or take a quantized model",
    ),
    JournalPattern(
        "gpu-shared",
        re.compile(r"Free memory on device .* is less than desired GPU memory utilization"),
        94,
        "something else holds memory of the GPU: another program, or an engine that outlived its unit",
        "nvidia-smi names the process; end it, or lower gpu_memory_utilization of the two to 1 together",
    ),
    # 10643, 55827
    JournalPattern(
        "concurrent-starts",
        re.compile(r"Error in memory profiling|Initial free memory .* current free memory"),
        93,
        "two instances started at once on one GPU and measured each other's memory",
        "run rackserve apply: its units start the instances of one GPU one after the other",
    ),
    JournalPattern(
        "driver-too-old",
        re.compile(r"driver version is insufficient|unsupported display driver|Driver/library version mismatch"),
        96,
        "the GPU driver does not fit the CUDA of this release",
        "install the driver that docs/reference/vllm-releases.md names for it and boot the host",
    ),
    JournalPattern(
        "no-kernel-image",
        re.compile(r"no kernel image is available for execution"),
        95,
        "the wheel has no code for this GPU's architecture",
        "run a release that supports the GPU",
    ),
    JournalPattern(
        "glibc",
        re.compile(r"version `GLIBC_[\d.]+' not found"),
        96,
        "the host's glibc is older than the wheel needs",
        "run a release whose glibc fits (docs/reference/vllm-releases.md), or a newer Debian",
    ),
    JournalPattern(
        "model-missing",
        re.compile(
            r"LocalEntryNotFoundError|offline mode is enabled|OfflineModeIsEnabled|couldn't connect to 'https?://"
        ),
        94,
        "the model is not in the host's cache, and there is no network to fetch it from",
        "add it to models in bundle.yml, build, import, rackserve apply",
    ),
    # safetensors 0.8 says "header too large" and "incomplete metadata", older ones "HeaderTooLarge". vLLM 0.32.0 reads
    # the header itself before: a broken one ends in a MemoryError of that function.
    JournalPattern(
        "weights-corrupt",
        re.compile(r"SafetensorError|Error while deserializing header|in parse_safetensors_file_metadata"),
        93,
        "a file of the model's weights is broken on the host",
        "rackserve apply compares every file of the model with its sha256 and brings it again; dmesg for the disk",
    ),
    JournalPattern(
        "disk-full",
        re.compile(r"No space left on device"),
        92,
        "a disk of the host is full",
        "see docs/how-to/alerts.md#diskfull",
    ),
    # 44548
    JournalPattern(
        "cache-not-writable",
        re.compile(r"getpwuid|Permission denied: '[^']*(\.cache|\.triton|torchinductor|vllm)"),
        90,
        "the engine cannot write to its cache",
        "run rackserve apply: its unit gives the engine folders of its own",
    ),
    JournalPattern(
        "socket-path",
        re.compile(r"is longer than 107 characters"),
        95,
        "the path of an internal socket is too long",
        "give the instance a shorter name; leave TMPDIR and VLLM_RPC_BASE_PATH alone",
    ),
    JournalPattern(
        "port-in-use",
        re.compile(r"[Aa]ddress already in use"),
        90,
        "another process listens where this instance wants to",
        "ss -lptn names it; end it, or set another port",
    ),
)
# systemd's line before a start; rackserve's units are called "vLLM instance NAME", others by their name.
_STARTS = re.compile(r"Starting (vLLM instance |.*vllm@)|Started .*vllm@")
_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory")
_SERVES = re.compile(r"Application startup complete|Uvicorn running on|Started server process")
_DOWNLOADS = re.compile(r"Downloading|Fetching \d+ files|Time spent downloading weights")
_PHASES: Final = (
    ("loading the weights", re.compile(r"Loading (?:model )?weights took ([\d.]+) s")),
    ("compiling", re.compile(r"torch\.compile (?:takes|took) ([\d.]+) s")),
    ("capturing CUDA graphs", re.compile(r"Graph capturing finished in ([\d.]+) s")),
)


def exit_causes(journal: tuple[str, ...], *, newest_start: bool, loops: bool) -> list[tuple[JournalPattern, str]]:
    """Return the causes that an engine's journal has for its exit, of its last start with a known error.

    An error of an earlier start may be fixed since, and is if a later start served; the newest start may still be
    running.

    Args:
        journal: its lines, oldest first.
        newest_start: whether the newest start has ended, so that only it counts.
        loops: whether the engine restarts in a loop, so that a start that served fixed nothing.
    """
    start: list[str] = []
    for line in reversed(journal):
        start.append(line)
        if _STARTS.match(line):
            found = _matches(start)
            if found or newest_start or (not loops and any(_SERVES.search(earlier) for earlier in start)):
                return found
            start = []
    return _matches(start)


def _matches(lines: list[str]) -> list[tuple[JournalPattern, str]]:
    """Return the patterns that match lines, newest first, each once."""
    found = ((known, next((line for line in lines if known.pattern.search(line)), None)) for known in JOURNAL_PATTERNS)
    return [(known, line) for known, line in found if line is not None]


def memory_ran_out(journal: tuple[str, ...]) -> tuple[str, bool] | None:
    """Return the line about the GPU's memory running out, and whether the engine had served before it."""
    served = False
    for line in journal:
        served = served or bool(_SERVES.search(line))
        if _OUT_OF_MEMORY.search(line):
            return line, served
    return None


def slow_phase(journal: tuple[str, ...]) -> tuple[str, float] | None:
    """Return the longest part of the last start and its seconds; the seconds of a download are unknown."""
    if any(_DOWNLOADS.search(line) for line in journal):
        return "downloading the model", 0.0
    found = {name: float(hit[1]) for line in journal for name, pattern in _PHASES if (hit := pattern.search(line))}
    return max(found.items(), key=lambda phase: phase[1]) if found else None
