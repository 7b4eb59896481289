"""Start vLLM once per configuration, alone on this machine's GPU, and record what each start spends its memory on.

Needs an environment with vLLM 0.26.0 and a GPU that nothing else uses; weights are vLLM's dummy ones, so a model is its
config.json. What it reads is also what it writes: runs without `measured` are started, and get it.

    VENV/bin/python python/tools/measure_memory.py python/tests/data/h200/capacity.json --into again.json --logs LOGS

The engine runs in the process that starts it (VLLM_ENABLE_V1_MULTIPROCESSING=0), so that its figures can be read to the
byte instead of from the log's rounded ones; it is the same worker that counts them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

KV_LINE: Final = re.compile(r"GPU KV cache size: ([\d,]+) tokens")
CONCURRENCY_LINE: Final = re.compile(r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x")
COMPILED_LINE: Final = "saved AOT compiled function"
START_LIMIT_S: Final = 300


class EnoughError(Exception):
    """The KV cache has its memory; this run asks for no more."""


def main() -> int:
    """Start every run that has no figures yet; stop when the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", type=Path, help="models and runs; or one run, with --one")
    parser.add_argument("--into", type=Path, required=True, help="the same, with what was measured")
    parser.add_argument("--logs", type=Path, help="folder for the engines' logs")
    parser.add_argument("--seconds", type=float, default=3600, help="start nothing more after that time")
    parser.add_argument("--one", metavar="MODEL", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    cases: dict[str, Any] = json.loads(asked.cases.read_text(encoding="utf-8"))
    if asked.one:
        asked.into.write_text(json.dumps(start(cases, asked.one)), encoding="utf-8")
        return 0
    deadline = time.monotonic() + asked.seconds
    asked.logs.mkdir(parents=True, exist_ok=True)
    for run in cases["runs"]:
        if "measured" not in run and time.monotonic() < deadline:
            measured = in_process(run, cases["models"][run["model"]], asked.logs / f"{run['name']}.log")
            print(run["name"], json.dumps(measured), flush=True)
            run.update({"measured": measured} if measured else {})
            asked.into.write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")
    return 0 if all("measured" in run for run in cases["runs"]) else 1


def in_process(run: dict[str, Any], model: dict[str, Any], log: Path) -> dict[str, Any] | None:
    """Start one run in a process of its own, so that the GPU is empty before and after; None when it failed."""
    with tempfile.TemporaryDirectory() as scratch, log.open("w", encoding="utf-8") as output:
        folder, case, answer = (Path(scratch) / name for name in ("model", "case.json", "answer.json"))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(model), encoding="utf-8")
        case.write_text(json.dumps(run), encoding="utf-8")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, __file__, case, "--one", folder, "--into", answer],
                env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", **run.get("environment", {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=START_LIMIT_S,
                check=False,
            )
        if not answer.is_file():
            return None
        measured: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return measured | logged(log.read_text(encoding="utf-8", errors="replace"))


def start(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Start the engine in this process; return what its worker counted."""
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    # vLLM looks at a model's class in another process, lest CUDA starts in a server; it imports everything once more.
    registry._LazyRegisteredModel.inspect_model_cls = lambda model: registry._ModelInfo.from_model_cls(  # noqa: SLF001
        model.load_model_cls()
    )
    worker_class: Any = importlib.import_module("vllm.v1.worker.gpu_worker").Worker
    engine: Any = importlib.import_module("vllm").LLM
    began = time.monotonic()
    seen: dict[str, Any] = {}
    whole = worker_class.compile_or_warm_up_model

    def with_figures(worker: Any) -> Any:  # noqa: ANN401
        seen.update(_figures(worker), seconds_to_kv=round(time.monotonic() - began, 1))
        if not run.get("graphs", True):
            raise EnoughError
        capture = worker.model_runner.capture_model

        def counted() -> int:
            seen["graphs"] = capture()
            return seen["graphs"]  # type: ignore[no-any-return]

        worker.model_runner.capture_model = counted
        done = whole(worker)
        free, total = importlib.import_module("torch").cuda.mem_get_info()
        seen.update(used_when_ready=total - free, seconds_to_ready=round(time.monotonic() - began, 1))
        return done

    worker_class.compile_or_warm_up_model = with_figures
    with contextlib.suppress(EnoughError):
        engine(model=str(folder), load_format="dummy", skip_tokenizer_init=True, **run["engine"])
    return seen


def _figures(worker: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "total": worker.init_snapshot.total_memory,
        "free_before": worker.init_snapshot.free_memory,
        "requested": worker.requested_memory,
        "weights": int(worker.model_runner.model_memory_usage),
        "activations": worker.peak_activation_memory,
        "context": worker.non_torch_memory,
        "graphs_estimate": worker.cudagraph_memory_estimate,
        "available_kv": worker.available_kv_cache_memory_bytes,
        "blocks": worker.cache_config.num_gpu_blocks,
        "second_runner": worker.use_v2_model_runner,
    }


def logged(text: str) -> dict[str, Any]:
    """Return what only the log says: tokens, concurrency, and whether this start had to compile."""
    tokens, concurrency = KV_LINE.search(text), CONCURRENCY_LINE.search(text)
    return {
        "tokens": int(tokens[1].replace(",", "")) if tokens else None,
        "concurrency": float(concurrency[1]) if concurrency else None,
        "compiled": COMPILED_LINE in text,
    }


if __name__ == "__main__":
    sys.exit(main())
