"""Each cause is named by what engines and systemd say of it, stands in the documentation, and has something to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rackserve.doctor import Evidence, UnitEvidence, diagnose
from rackserve.doctor._causes import Cause, causes

PAGE = Path(__file__).parents[3] / "docs/reference/doctor.md"
NAMES = sorted({cause.name for cause in causes()})
# What each cause looks like in releases and libraries other than those of the reports in python/tests/data/failures.
SAID = {
    "architecture": "ValueError: Model architecture X was supported in vLLM until v0.22, and is not supported anymore.",
    "bad-value": "ValueError: Attention backend FLASHINFER is not valid for cuda.",
    "broken-package": "ModuleNotFoundError: No module named 'flashinfer'",
    "cache-not-writable": "PermissionError: [Errno 13] Permission denied: '/var/cache/vllm/a/torch_compile_cache'",
    "compile-cache": "InductorError: FileNotFoundError: No such file or directory: '/var/cache/vllm/a/inductor/x.py'",
    "compiler-missing": "RuntimeError: Failed to find C compiler. Please specify via CC environment variable",
    "compiler-too-old": "nvcc fatal   : Unknown option '--threads'",
    "concurrent-starts": "AssertionError: Error in memory profiling. Initial free memory 1, current free memory 2",
    "context-too-long": "ValueError: (16.00 GiB KV cache is needed, which is larger than the available KV cache memory",
    "cpu-too-old": "vllm@a.service: Main process exited, code=dumped, status=4/ILL",
    "crashed": "vllm@a.service: Main process exited, code=dumped, status=11/SEGV",
    "custom-code": "ValueError: Loading /m requires you to execute the configuration file in that repo",
    "disk-error": "OSError: [Errno 5] Input/output error: '/m/model.safetensors'",
    "disk-full": "OSError: [Errno 28] No space left on device: '/var/cache/vllm/a/x'",
    "driver-mismatch": "RuntimeError: Failed to initialize NVML: Driver/library version mismatch",
    "driver-missing": "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
    "driver-too-old": "RuntimeError: The NVIDIA driver on your system is too old (found version 12020).",
    "fabric-manager": "RuntimeError: CUDA error: system not yet initialized",
    "glibc": "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found",
    "gpu-busy": "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "gpu-fault": "RuntimeError: CUDA error: uncorrectable ECC error encountered",
    "gpu-shared": "ValueError: Free memory on device cuda:0 (3.1/139.8 GiB) on startup is less than desired GPU memory"
    " utilization (0.9, 125 GiB).",
    "gpu-too-old": "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
    "host-oom": "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate",
    "killed": "ERROR 11-30 10:00:00 [m.py:316] Worker proc VllmWorker-1 died unexpectedly (exit code: -9)",
    "length-too-long": "ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (8)",
    "library-missing": "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory",
    "lora": "ValueError: LoRA rank 64 is greater than max_lora_rank 16.",
    "model-corrupt": '  File "/s/transformers/configuration_utils.py", line 1, in _dict_from_json_file\n'
    "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    "model-missing": "OSError: /m does not appear to have a file named config.json.",
    "nccl": "RuntimeError: NCCL error: invalid usage (run with NCCL_DEBUG=WARN for details)",
    "no-cache-memory": "ValueError: No available memory for the cache blocks.",
    "no-kernel-image": "RuntimeError: Triton Error [CUDA]: device kernel image is invalid",
    "not-permitted": "zmq.error.ZMQError: Operation not permitted",
    "oom-at-start": "gpu1:9:9 [0] init.cc:1 NCCL WARN Cuda failure 'out of memory'",
    "oom-mid-traffic": "INFO:     Application startup complete.\ntorch.OutOfMemoryError: CUDA out of memory.",
    "port-in-use": "torch.distributed.DistNetworkError: code: -98, name: EADDRINUSE",
    "quantization-conflict": "ValueError: Quantization method specified in the model config (awq) does not match the"
    " quantization method specified in the `quantization` argument (gptq).",
    "quantization-unknown": "ValueError: Unknown quantization method: bitsandbytes. Must be one of ['awq'].",
    "shared-memory": "(APIServer pid=1) RuntimeError: Engine core initialization failed. Failed core"
    " proc(s): {'EngineCore_0': -7}",
    "shared-memory-removed": "FileNotFoundError: [Errno 2] No such file or directory: '/psm_1a2b'",
    "socket-path": 'zmq.error.ZMQError: ipc path "/run/x" is longer than 107 characters',
    "tensor-parallel": "AssertionError: 25 is not divisible by 2",
    "tokenizer-missing": "OSError: Can't load tokenizer for '/m'.",
    "too-few-gpus": "ValueError: World size (4) is larger than the number of available GPUs (2) in this node.",
    "too-many-files": "OSError: [Errno 24] Too many open files",
    "too-many-tasks": "RuntimeError: can't start new thread",
    "unit-setup": "vllm@a.service: Main process exited, code=exited, status=203/EXEC",
    "weights-corrupt": "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
    "weights-mismatch": "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}",
    "weights-missing": "FileNotFoundError: [Errno 2] No such file or directory: '/m/model-00002-of-00002.safetensors'",
    "worker-died": "ERROR 11-30 10:00:00 [m.py:300] Worker proc VllmWorker-0 died unexpectedly",
    "wrong-flag": "vllm serve: error: argument --max-num-seqs: invalid int value: 'x'",
}


@pytest.mark.parametrize("name", NAMES)
def test_each_cause_is_named_by_what_is_said_of_it(name: str) -> None:
    journal = tuple(SAID[name].splitlines())
    unit = UnitEvidence("gpu1", "a", active="failed", result="exit-code", restarts=5, probe="failed", journal=journal)
    first, *_ = diagnose(Evidence(units=(unit,)))
    assert first.rule == name
    assert first.evidence in journal[-1] or journal[-1].endswith(first.evidence)


@pytest.mark.parametrize("cause", causes(), ids=lambda cause: cause.name)
def test_each_cause_stands_in_the_documentation(cause: Cause) -> None:
    assert f"| `{cause.name}` | {cause.cause} |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("cause", causes(), ids=lambda cause: cause.name)
def test_a_fix_is_no_sentence_with_an_end_and_no_other_name_than_the_instances(cause: Cause) -> None:
    assert not cause.fix.endswith(".")
    assert "vllm@" not in cause.fix.replace("vllm@NAME", "").replace("vllm@ ", "")


def test_a_cause_that_matches_everything_is_refused() -> None:
    with pytest.raises(ValidationError, match="neither says nor frames"):
        Cause(name="x", weight=50, cause="c", fix="f")
