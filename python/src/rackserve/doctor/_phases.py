"""The phases of a start: where an engine is, how long each took, and in which one it failed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackserve.doctor._lines import Line

IMPORTS: Final = "importing its packages"
CONFIG: Final = "reading its arguments and the model's configuration"
PROCESSES: Final = "starting its processes"
NCCL: Final = "setting up NCCL"
DOWNLOAD: Final = "downloading the model"
WEIGHTS: Final = "loading the weights"
COMPILE: Final = "compiling"
PROFILE: Final = "measuring the memory for the KV cache"
GRAPHS: Final = "capturing CUDA graphs"
API: Final = "opening its API"
SERVING: Final = "serving"
_ORDER: Final = (IMPORTS, CONFIG, PROCESSES, NCCL, DOWNLOAD, WEIGHTS, COMPILE, PROFILE, GRAPHS, API, SERVING)

# Lines of vLLM 0.6.4 to 0.32.0 with which a phase begins, or that only it writes: v1/engine/core.py, v1/worker/,
# distributed/parallel_state.py, model_executor/model_loader/, compilation/, entrypoints/.
_MARKERS: Final = (
    (
        SERVING,
        re.compile(
            r"Application startup complete|generated its first token|Uvicorn running on"
            r"|Avg (?:prompt|generation) throughput|\" (?:200|4\d\d) ?\w*"
        ),
    ),
    (API, re.compile(r"Starting vLLM (?:API )?server|init engine \(|Available routes are|Started server process")),
    (GRAPHS, re.compile(r"[Cc]apturing (?:the model for )?(?:CUDA ?graph|cudagraph)|Graph capturing finished")),
    (
        PROFILE,
        re.compile(
            r"Memory profiling takes|[Aa]vailable KV cache memory|KV cache size: |# (?:GPU|CUDA|CPU) blocks"
            r"|Estimated CUDA graph memory|Encoder cache will be initialized"
        ),
    ),
    (
        COMPILE,
        re.compile(
            r"torch\.compile|Dynamo bytecode transform|torch_compile_cache|Compiling a graph|JIT kernel warmup"
            r"|Warming up model for the compilation|[Aa]utotun"
        ),
    ),
    (
        WEIGHTS,
        re.compile(
            r"Starting to load model|Loading (?:\w+ )?checkpoint shards|Loading (?:model )?weights took"
            r"|Model loading took|Initializing model took|Prefetching checkpoint"
        ),
    ),
    (DOWNLOAD, re.compile(r"Downloading|Fetching \d+ files|Time spent downloading weights")),
    (
        NCCL,
        re.compile(
            r"world_size=\d+ rank=|using nccl==|Init torch distributed|P2P access cache|ncclCommInit|(?i:\bnccl\b)"
            r"|message queue communication handle|rank \d+ in world size|custom allreduce|Gloo\b"
        ),
    ),
    (PROCESSES, re.compile(r"Initializing an? (?:V[01] )?LLM engine|Waiting for init message|DP group leader")),
    (CONFIG, re.compile(r"non-default args|args: Namespace|API server version|Resolved architecture|max model len")),
    (IMPORTS, re.compile(r"Automatically detected platform|Triton is installed|Available plugins")),
)
_SECONDS: Final = (
    (DOWNLOAD, re.compile(r"Time spent downloading weights for .*: ([\d.]+) s")),
    (WEIGHTS, re.compile(r"Loading (?:model )?weights took ([\d.]+) s")),
    (WEIGHTS, re.compile(r"Model loading took .* ([\d.]+) s")),
    (COMPILE, re.compile(r"torch\.compile (?:takes|took) ([\d.]+) s")),
    (GRAPHS, re.compile(r"Graph capturing finished in ([\d.]+) s")),
    (PROFILE, re.compile(r"Memory profiling takes ([\d.]+) s")),
)
# A progress bar of tqdm: 25%|██  | 1/4 [00:47<02:21, 47.1s/it]
_BAR: Final = re.compile(r"(?P<percent>\d+)%.*?\[(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d\d)[<,]")
_PERCENT: Final = re.compile(r"(\d+)%")
_FULL: Final = 100

# The deepest frame of a traceback that one of these knows names the phase.
_FRAMES: Final = (
    (GRAPHS, re.compile(r"capture_(?:model|graph)|cuda_?graphs?\.py|torch/cuda/graphs|_capture_cudagraphs")),
    (
        COMPILE,
        re.compile(
            r"/_inductor/|/_dynamo/|/vllm/compilation/|/triton/(?:compiler|runtime|backends|language)|cpp_extension"
            r"|flashinfer/(?:jit|compilation)|deep_gemm\w*/(?:jit|utils)|aot_compile|tilelang"
        ),
    ),
    (
        PROFILE,
        re.compile(
            r"determine_(?:available_memory|num_available_blocks)|profile_(?:run|cudagraph)|kv_cache_utils"
            r"|initialize_kv_caches|initialize_from_config|initialize_(?:kv_)?cache|_dummy_(?:run|sampler_run)"
        ),
    ),
    (
        WEIGHTS,
        re.compile(r"in load_model$|model_loader|weight_utils|in load_weights|initialize_model|weights_after_loading"),
    ),
    (
        NCCL,
        re.compile(
            r"init_device|parallel_state|pynccl|init_process_group|distributed_environment|device_communicators"
            r"|torch/distributed|init_model_parallel|shm_broadcast"
        ),
    ),
    (
        CONFIG,
        re.compile(
            r"create_(?:model|engine)_configs?|/vllm/config|arg_utils|configuration_\w+\.py|argparse"
            r"|dynamic_module_utils|transformers_utils|/transformers/|tokenizers?[/_]|huggingface_hub|registry\.py"
        ),
    ),
    (PROCESSES, re.compile(r"launch_core_engines|wait_for_engine_startup|engine/utils\.py|_init_executor|core_client")),
    (API, re.compile(r"build_app|init_app_state|setup_server|entrypoints/\S*serving")),
)
# A step of the engine; one of the profile has a frame of the profile too.
_STEP_FRAME: Final = re.compile(r"in (?:run_busy_loop|_process_engine_step|engine_step|run_engine_loop|execute_model)$")
_IMPORT_FRAME: Final = re.compile(r"<frozen importlib|in <module>$")


class Mark(NamedTuple):
    """A line that shows a phase; `at` is its place among the lines of the start."""

    at: int
    process: str
    phase: str


def marks_of(lines: Sequence[Line]) -> list[Mark]:
    """Return the lines of a start that show a phase."""
    found = []
    for at, line in enumerate(lines):
        if line.level in {"", "INFO", "DEBUG"}:
            phase = next((phase for phase, marker in _MARKERS if marker.search(line.text)), None)
            if phase:
                found.append(Mark(at, line.process, phase))
    return found


def later(phase: str, other: str | None) -> bool:
    """Return whether a phase comes after another in a start; every phase but the first comes after none."""
    return _ORDER.index(phase) > _ORDER.index(other or IMPORTS)


def reached(marks: Sequence[Mark], at: int) -> str | None:
    """Return the furthest phase before a place; None before any."""
    return max((mark.phase for mark in marks if mark.at <= at), key=_ORDER.index, default=None)


def phase_of_frames(frames: Sequence[str]) -> str | None:
    """Return the phase that a traceback's frames show, outermost first as Python prints them."""
    found = [phase for frame in frames if (phase := next((one for one, known in _FRAMES if known.search(frame)), None))]
    if any(map(_STEP_FRAME.search, frames)) and not {PROFILE, GRAPHS, WEIGHTS} & {*found}:
        return SERVING
    if found:
        return found[-1]
    return IMPORTS if frames and _IMPORT_FRAME.search(frames[-1]) else None


def slow_phase(lines: Sequence[Line]) -> tuple[str, float] | None:
    """Return the longest part of a start and its seconds; 0 where it goes on and no line tells them.

    Files that are there already are "fetched" as well, at once and to 100 %: that is no download.
    """
    found: dict[str, float] = {}
    running: dict[str, float] = {}
    for line in lines:
        for phase, pattern in _SECONDS:
            if hit := pattern.search(line.text):
                found[phase] = max(found.get(phase, 0.0), float(hit[1]))
                running.pop(phase, None)
        shown = next((phase for phase, marker in _MARKERS if marker.search(line.text)), None)
        if shown in {DOWNLOAD, WEIGHTS} and (percent := _PERCENT.search(line.text)):
            took = _bar_seconds(line.text)
            if int(percent[1]) >= _FULL:
                running.pop(shown, None)
                found[shown] = max(found.get(shown, 0.0), took)
            else:
                running[shown] = took
    going = [phase for phase in running if not any(later(done, phase) for done in found if found[done])]
    longest = max((found | {phase: running[phase] for phase in going}).items(), key=lambda one: one[1], default=None)
    if longest and not longest[1]:
        return (DOWNLOAD, 0.0) if DOWNLOAD in going else None
    return longest


def _bar_seconds(text: str) -> float:
    """Return the seconds that a progress bar has taken; 0 where it has none yet."""
    bar = _BAR.search(text)
    if bar is None:
        return 0.0
    return int(bar["hours"] or 0) * 3600.0 + int(bar["minutes"]) * 60 + int(bar["seconds"])
