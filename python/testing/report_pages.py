"""A report made by hand, of everything that a page may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rackserve import capacity
from rackserve.bench import BenchResult, Load, Sample, summarise
from rackserve.checks import CheckResult
from rackserve.doctor import Finding
from rackserve.report import BundleFacts, CapacityFacts, HostRow, InstanceRow, RunFacts, SiteReport
from rackserve.run import HostStats, TaskChange, TaskFailure

if TYPE_CHECKING:
    from rackserve.bench import Level

SHAPE = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def level(load: float, base: float, *, failed: int = 0) -> Level:
    samples = [
        Sample(
            "ok",
            ttft=base * (1 + n / 10),
            last=base * 3 + n / 10,
            end=base * 3 + n / 10 + 0.01,
            gaps=tuple(0.02 + 0.001 * ((n * 7 + k) % 11) for k in range(15)),
            output_tokens=16,
            prompt_tokens=80,
            counted=True,
        )
        for n in range(12)
    ]
    samples += [Sample("HTTP 429", "Too many requests")] * failed
    return summarise(load, samples, 12 * base)


def plan() -> capacity.Plan:
    shape = capacity.shape_of(SHAPE)
    settings = capacity.Settings(max_model_len=2048, max_num_seqs=8, available_kv=1 << 30, device="cpu")
    weights = capacity.weights_of(Path("none"), shape, None)
    return capacity.plan(shape, weights, capacity.arithmetic_of("0.32.0"), settings)


def bench(*, failed: int = 0) -> BenchResult:
    levels = (level(1, 0.08), level(2, 0.11), level(4, 0.19, failed=failed))
    return BenchResult("edge1", "smollm2", "2026-01-02T03:04:05+00:00", Load(), 0, levels)


def healthy() -> SiteReport:
    return SiteReport(
        site="llm.example",
        versions={"rackserve": "0.1.0", "Python": "3.11.2"},
        hosts=(
            HostRow("gpu1", "10.0.0.11", ("serves models",), "debian 12, x86_64", "lab version 7", ("0.32.0-abc",)),
            HostRow("edge1", "10.0.0.21", ("edge", "monitoring"), "debian 12, x86_64", "lab version 7"),
        ),
        instances=(
            InstanceRow(
                host="gpu1",
                name="chat",
                model="org/model",
                revision="5cc27a1063673555",
                served_names=("chat",),
                device="cpu",
                release="0.32.0-abc",
                state="answering",
                health="ready",
                max_model_len=2048,
                max_num_seqs=8,
            ),
        ),
        bundle=BundleFacts(
            name="lab",
            version=7,
            digest="7c" * 32,
            files=812,
            size=1_300_000_000,
            signer="lab",
            fingerprint="SHA256:abcd",
            audit="nothing known (2026-01-01T00:00:00Z)",
            runtimes=("0.32.0-abc",),
            models=("org/model at 5cc2",),
        ),
        run=RunFacts(
            name="20260101T000000.000000Z-site",
            playbook="site.yml",
            started="2026-01-01T00:00:00+00:00",
            seconds=754,
            limit="",
            check=False,
            ok=True,
            hosts=(HostStats("edge1", ok=9, changed=1), HostStats("gpu1", ok=12, changed=2)),
            changes=(
                TaskChange("bundle", "install | Place it", ("edge1", "gpu1")),
                TaskChange("vllm", "configure | Write it", ("gpu1",)),
            ),
            problems=(),
        ),
        checks=(
            CheckResult("chat chat", "gpu1", ok=True, detail="answered 'Paris.'"),
            CheckResult("tls", "edge1", ok=True, detail="TLSv1.3"),
        ),
        findings=(),
        examined=2,
        capacity=(CapacityFacts(("gpu1:chat",), plan()),),
        bench=bench(),
    )


def ill() -> SiteReport:
    found = healthy()
    assert found.run
    refused = TaskFailure("gpu1", "preflight | Disk", "too little disk")
    return replace(
        found,
        run=replace(found.run, ok=False, problems=(refused,)),
        checks=(*found.checks, CheckResult("unit nginx.service", "edge1", ok=False, detail="inactive (dead)")),
        findings=(Finding("a disk is full", "gpu1", "chat", "/ has 1.0% left", "remove something", 92, "disk-full"),),
        bench=bench(failed=3),
        capacity=(CapacityFacts(("gpu1:chat",), None, "the memory of its GPU is not known"),),
    )
