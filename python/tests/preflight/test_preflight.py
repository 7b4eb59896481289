"""A host is refused for each reason, by name, and a fit one is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bundle import Manifest, Model, Runtime
from rackserve.errors import InputError
from rackserve.gpu import GpuFacts
from rackserve.preflight import Host, HostFacts, HostSpec, compare, parts_for, refused
from testing.model_folders import Layout
from testing.small_site import FIT, GB, INSTANCE, MANIFEST, REVISION, WANTED

if TYPE_CHECKING:
    from pathlib import Path


def host_problems(wanted: HostSpec, manifest: Manifest, facts: HostFacts, bundle: Path) -> list[str]:
    """Give each finding as one text."""
    found = compare(wanted, manifest, Host("gpu1", facts), bundle)
    assert found.fits is not bool(found.text)
    return [*found.problems, *(f"{r.what}: {r.wanted}, found {r.found}; {r.fix}" for r in refused(found.rows))]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Give a bundle's folder with the configuration of its one model: 16 layers, 8 of 32 heads for keys and values."""
    config = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
    }
    files = "tokenizer.json tokenizer_config.json pytorch_model.bin"
    Layout("LlamaForCausalLM", "llama", files, 0, config).write(tmp_path / f"models/o--m/{REVISION}")
    return tmp_path


def test_a_fit_host_is_let_through(bundle: Path) -> None:
    assert host_problems(WANTED, MANIFEST, FIT, bundle) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"euid": 1000}, "user: root, found user id 1000; set ansible_user: root"),
        (
            {"distribution": "alpine", "release": "3"},
            "as the bundle carries, found alpine 3; install Debian 12 or 13",
        ),
        ({"release": "13"}, "Debian 12, as the bundle carries, found debian 13; add the release to bundle.yml"),
        ({"architecture": "aarch64"}, "machine: x86_64, found aarch64"),
        ({"pythons": {}}, "/usr/bin/python3.11, found not on the host"),
        ({"floor": {"lab": {"version": 5, "id": "x"}}}, "older than version 5"),
        ({"floor": {"lab": {"version": 4, "id": "x"}}}, "with other contents"),
        ({"free_bytes": {"/s": 1 * GB, "/r": 9 * GB}}, "disk /s: 2.0 GB, found 1.0 GB free"),
        ({"free_bytes": {"/s": 9 * GB, "/r": 4 * GB}}, "disk /r: 5.0 GB, found 4.0 GB free"),
    ],
)
def test_an_unfit_host_is_refused_with_the_value_found(change: dict[str, Any], reason: str, bundle: Path) -> None:
    (problem,) = host_problems(WANTED, MANIFEST, replace(FIT, **change), bundle)
    assert reason in problem


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        ({"lab": {"version": 4, "id": MANIFEST.id}}, ""),
        ({"lab": {"version": 3, "id": "x"}}, ""),
        ({"other": {"version": 9, "id": "x"}}, ""),
        ({"lab": {"version": 5, "id": "x"}}, "5 answers nonsense"),
        ({"lab": {"version": 5, "id": "x", "installed": MANIFEST.id}}, ""),
    ],
    ids=["the same", "a newer one", "another's", "an older one with a reason", "an older one that is installed"],
)
def test_a_bundle_that_is_no_replay_is_let_through(floor: dict[str, Any], reason: str, bundle: Path) -> None:
    assert host_problems(replace(WANTED, downgrade_reason=reason), MANIFEST, replace(FIT, floor=floor), bundle) == []


def test_a_misspelt_key_of_an_instance_gets_one_message_with_the_likely_key(bundle: Path) -> None:
    wrong = replace(WANTED, instances=({**INSTANCE, "max_num_seq": 4},))
    (problem,) = host_problems(wrong, MANIFEST, FIT, bundle)
    assert problem.startswith(
        "vllm_instances: instance 'a': unknown key 'max_num_seq' (found 4), is it 'max_num_seqs'?; known keys are name,"
    )


def test_what_is_there_already_needs_no_room(bundle: Path) -> None:
    full = replace(FIT, free_bytes={"/s": 0, "/r": 0}, stored_bytes=3 * GB, releases=("0.32.0-abc",))
    assert host_problems(WANTED, MANIFEST, full, bundle) == []


def test_an_instance_that_cannot_hold_one_request_is_refused(bundle: Path) -> None:
    # 2 x 16 layers x 8 heads x 64 numbers x 2 bytes = 32 KiB a token: 1 GiB has room for 32,768 of them.
    long = {**INSTANCE, "max_model_len": 131072}
    (problem,) = host_problems(replace(WANTED, instances=(long,)), MANIFEST, FIT, bundle)
    assert "instance 'a'" in problem
    assert "131072" in problem.replace(",", "")
    room = replace(WANTED, instances=(long,), cpu_kvcache_gib=5)
    assert host_problems(room, MANIFEST, FIT, bundle) == []


def test_a_model_that_the_bundle_lacks_is_named(bundle: Path) -> None:
    other = {**INSTANCE, "model": {"repo": "o/other", "revision": REVISION}}
    (problem,) = host_problems(replace(WANTED, instances=(other,)), MANIFEST, FIT, bundle)
    assert "o/other" in problem
    assert f"which has o/m at {REVISION}" in problem


def test_an_adapter_that_does_not_fit_is_refused_and_one_that_fits_is_a_part(bundle: Path) -> None:
    lora = {"name": "x", "repo": "o/x", "revision": "1" * 40}
    wanted = replace(WANTED, instances=({**INSTANCE, "lora": [lora]},))
    (problem,) = host_problems(wanted, MANIFEST, FIT, bundle)
    assert "adapter 'x': o/x" in problem
    assert "is not in the bundle" in problem
    path = f"models/o--x/{'1' * 40}"
    carried = replace(MANIFEST, models=(*MANIFEST.models, Model("o/x", "1" * 40, path, 5)))
    (problem,) = host_problems(wanted, carried, FIT, bundle)
    assert "adapter_config.json of o/x is not in the bundle" in problem
    assert path in parts_for(carried, "12", wanted.instances, vllm="0.32.0", flavour="cpu", python="3.11")


def test_a_chat_template_that_is_nowhere_is_refused(bundle: Path) -> None:
    wanted = replace(WANTED, instances=({**INSTANCE, "chat_template": "t.jinja"},))
    (problem,) = host_problems(wanted, MANIFEST, FIT, bundle)
    assert "chat_template 't.jinja' is neither a file in the inventory's folder /site nor one of o/m" in problem


def test_a_version_that_the_bundle_lacks_is_named(bundle: Path) -> None:
    (problem,) = host_problems(replace(WANTED, vllm="0.33.0"), MANIFEST, FIT, bundle)
    assert "no vLLM 0.33.0" in problem
    assert "0.32.0 (cpu, Python 3.11)" in problem


def test_every_reason_is_reported_at_once(bundle: Path) -> None:
    bad = replace(FIT, euid=1, architecture="aarch64", pythons={})
    assert len(host_problems(WANTED, MANIFEST, bad, bundle)) == 3


def test_a_host_that_serves_nothing_needs_packages_only(bundle: Path) -> None:
    idle = replace(WANTED, instances=(), serves=False)
    assert host_problems(idle, MANIFEST, replace(FIT, pythons={}, free_bytes={"/s": GB, "/r": 0}), bundle) == []
    assert parts_for(MANIFEST, "12", (), vllm="0.32.0", flavour="cpu", python="3.11") == ("apt/debian-12",)


def test_a_model_that_is_not_whole_refuses_the_host(bundle: Path) -> None:
    (bundle / f"models/o--m/{REVISION}/tokenizer.json").unlink()
    (problem,) = host_problems(WANTED, MANIFEST, FIT, bundle)
    assert problem.startswith("instance 'a': o/m: it has no tokenizer; add its files")


def test_a_checkpoint_that_the_gpu_is_too_old_for_refuses_the_host(bundle: Path) -> None:
    folder = bundle / f"models/o--m/{REVISION}"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    runtime = replace(MANIFEST.runtimes[0], vllm="0.10.2", flavour="cuda")
    carried = replace(MANIFEST, runtimes=(runtime,))
    wanted = replace(WANTED, instances=({**INSTANCE, "gpus": [0]},), vllm="0.10.2", flavour="cuda")
    for capability, refuses in {(7, 0): True, (7, 5): True, (8, 0): False}.items():
        read = gpu_facts().model_copy(deep=True)
        gpus = read.model_copy(
            update={"gpus": tuple(gpu.model_copy(update={"reported_capability": capability}) for gpu in read.gpus)}
        )
        found = compare(wanted, carried, Host("gpu1", FIT, gpus), bundle)
        assert any("its quantization is fp8, for which vLLM 0.10.2 wants" in text for text in found.problems) is refuses


def test_a_draft_model_is_copied_and_has_to_be_in_the_bundle(bundle: Path) -> None:
    speculative = {"speculative-config": {"model": "o/draft", "num_speculative_tokens": 3}}
    wanted = replace(WANTED, instances=({**INSTANCE, "extra_args": speculative},))
    (problem,) = host_problems(wanted, MANIFEST, FIT, bundle)
    assert problem.startswith(
        "instance 'a': extra_args.speculative-config.model is o/draft, which is not in the bundle; "
    )
    path = f"models/o--draft/{'1' * 40}"
    carried = replace(MANIFEST, models=(*MANIFEST.models, Model("o/draft", "1" * 40, path, 5)))
    Layout("LlamaForCausalLM", "llama", "pytorch_model.bin", 0, template="").write(bundle / path)
    assert host_problems(wanted, carried, FIT, bundle) == []
    assert path in parts_for(carried, "12", wanted.instances, vllm="0.32.0", flavour="cpu", python="3.11")
    (bundle / path / "pytorch_model.bin").unlink()
    assert "o/draft: it has no weights" in host_problems(wanted, carried, FIT, bundle)[0]


def test_a_tokenizer_of_another_repository_has_to_be_one(bundle: Path) -> None:
    wanted = replace(WANTED, instances=({**INSTANCE, "extra_args": {"tokenizer": "o/words"}},))
    path = f"models/o--words/{'1' * 40}"
    carried = replace(MANIFEST, models=(*MANIFEST.models, Model("o/words", "1" * 40, path, 5)))
    (bundle / path).mkdir(parents=True)
    (bundle / path / "tokenizer_config.json").write_text("{}")
    assert "o/words: it has no tokenizer" in host_problems(wanted, carried, FIT, bundle)[0]
    (bundle / path / "tokenizer.json").write_text("{}")
    (bundle / f"models/o--m/{REVISION}/tokenizer.json").unlink()
    assert host_problems(wanted, carried, FIT, bundle) == []


def test_a_host_that_serves_needs_lock_wheels_and_its_models() -> None:
    parts = parts_for(MANIFEST, "12", (INSTANCE,), vllm="0.32.0", flavour="cpu", python="3.11")
    assert parts == ("apt/debian-12", "locks/l.txt", "wheels/w", f"models/o--m/{REVISION}")
    with pytest.raises(InputError):
        parts_for(MANIFEST, "12", (INSTANCE,), vllm="9", flavour="cpu", python="3.11")


def gpu_facts(memory: int = 80 << 30, **driver: Any) -> GpuFacts:
    """Stand in for what rackserve_gpu_facts reads on a host with one H100."""
    gpu = {
        "bus_id": "0000:10:00.0",
        "device_id": "2330",
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "memory": memory,
        "capability": [9, 0],
    }
    read = {"version": "580.95.05", "cuda": "13.0", "modules": "open", **driver}
    return GpuFacts.of({"gpus": [gpu], "driver": read, "host": {"kernel": "6.1.0-47-amd64", "glibc": "2.36"}})


CUDA = replace(
    MANIFEST, runtimes=(Runtime("0.32.0-def", "0.32.0", "cuda", "3.11", "locks/l.txt", "0" * 64, "wheels/w"),)
)


def cuda_host(gpus: GpuFacts, **peers: GpuFacts) -> Host:
    return Host("gpu1", FIT, gpus, {"gpu1": gpus, **peers})


def test_a_cuda_host_that_fits_is_let_through(bundle: Path) -> None:
    wanted = replace(WANTED, flavour="cuda", instances=({**INSTANCE, "gpus": [0]},))
    found = compare(wanted, CUDA, cuda_host(gpu_facts()), bundle)
    assert found.fits, found.text
    assert {"GPUs that answer", "driver", "glibc", "a: gpus", "disk /r"} <= {row.what for row in found.rows}


def test_a_cuda_host_is_refused_with_everything_in_one_text(bundle: Path) -> None:
    wanted = replace(WANTED, flavour="cuda", instances=({**INSTANCE, "gpus": [1]},))
    old = gpu_facts(version="535.183.01", cuda="12.2")
    found = compare(wanted, MANIFEST, cuda_host(old), bundle)
    assert [row.what for row in refused(found.rows)] == ["driver", "a: gpus"]
    assert found.text.startswith("the bundle has no vLLM 0.32.0 for cuda")
    assert "580 or newer (CUDA 13 of vLLM 0.32.0)" in found.text
    assert "no 1; the host has 0 = 0000:10:00.0" in found.text


def test_a_gpus_own_memory_decides_what_it_holds(bundle: Path) -> None:
    long = {**INSTANCE, "gpus": [0], "max_model_len": 131072}
    wanted = replace(WANTED, flavour="cuda", instances=(long,))
    assert compare(wanted, CUDA, cuda_host(gpu_facts()), bundle).fits
    (problem,) = compare(wanted, CUDA, cuda_host(gpu_facts(memory=6 << 30)), bundle).problems
    assert "instance 'a': one request of max_model_len 131072 needs 4.00 GiB of KV cache" in problem


def test_hosts_that_share_instances_share_a_kind_of_gpu(bundle: Path) -> None:
    wanted = replace(WANTED, flavour="cuda", instances=({**INSTANCE, "gpus": [0]},))
    other = GpuFacts.of({"gpus": [{"bus_id": "x", "device_id": "20b2"}], "host": {"kernel": "6", "glibc": "2.36"}})
    (row,) = refused(compare(wanted, CUDA, cuda_host(gpu_facts(), gpu2=other), bundle).rows)
    assert row.what == "GPUs of the group"
    assert compare(wanted, CUDA, cuda_host(gpu_facts(), gpu2=gpu_facts()), bundle).fits


@pytest.mark.parametrize("lock", ["a==1\nflashinfer-jit-cache==0.6.14 \\\n", "a==1\n"])
def test_compiled_kernels_are_looked_for_in_the_lock(bundle: Path, lock: str) -> None:
    (bundle / "locks").mkdir()
    (bundle / "locks/l.txt").write_text(lock)
    asked = {**INSTANCE, "gpus": [0], "extra_args": {"attention-backend": "FLASHINFER"}}
    found = compare(replace(WANTED, flavour="cuda", instances=(asked,)), CUDA, cuda_host(gpu_facts()), bundle)
    assert found.fits is ("flashinfer-jit-cache" in lock)
