"""What the filters decide by themselves; the rest they hand on."""

from __future__ import annotations

import pytest

from rackserve.ansible.filters.rackserve import (
    rackserve_config,
    rackserve_engine,
    rackserve_environment,
    rackserve_gpus_of_peers,
    rackserve_reason,
    rackserve_words,
)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"stderr": "noise\nu: vLLM refuses\n", "msg": "failed to validate"}, "u: vLLM refuses"),
        ({"stderr": "", "msg": "Error", "cmd": "/opt/python -I x"}, "/opt/python cannot be run; run the role"),
        ({"msg": "disk full"}, "disk full"),
    ],
)
def test_a_failed_validation_has_one_reason(result: dict[str, str], said: str) -> None:
    assert rackserve_reason(result).startswith(said)


def test_an_engine_is_reached_where_its_file_says() -> None:
    raw = [{"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 4, "max_model_len": 128}]
    newest, oldest = (rackserve_config(raw, "a", v, flavour="cpu", timeout=1) for v in ("0.32.0", "0.6.4.post1"))
    assert rackserve_engine(newest) == "/run/vllm-a/api.sock"
    assert rackserve_engine(oldest) == "127.0.0.1:8000"
    assert rackserve_words(raw, "a", "0.6.4.post1") == ["o/m", "--served-model-name", "o/m"]


RAW = [{"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 1, "max_model_len": 8}]
T4 = {"bus_id": "0000:10:00.0", "device_id": "1eb8", "index": 3, "uuid": f"GPU-{'0' * 36}", "capability": [7, 5]}


def test_an_engine_is_told_of_its_gpus_as_its_release_reads_them() -> None:
    raw = [{**RAW[0], "gpus": ["0000:10:00.0"]}]
    for vllm, expected in (("0.32.0", f"GPU-{'0' * 36}"), ("0.22.1", "3")):
        told = rackserve_environment(raw, "a", vllm, flavour="cuda", kvcache_gib=1, gpus=[T4])
        assert told["CUDA_VISIBLE_DEVICES"] == expected
    assert rackserve_config(raw, "a", "0.32.0", flavour="cuda", timeout=1, gpus=[T4])["dtype"] == "float16"
    assert rackserve_config(raw, "a", "0.32.0", flavour="cuda", timeout=1)["dtype"] == "auto"


def test_peers_serve_the_very_same_instances() -> None:
    read = {"gpus": [], "driver": {}, "host": {"kernel": "6", "glibc": "2.36"}}
    hostvars = {
        "gpu1": {"vllm_instances": RAW, "read": read},
        "gpu2": {"vllm_instances": RAW, "read": read},
        "gpu3": {"vllm_instances": [{**RAW[0], "max_num_seqs": 2}], "read": read},
        "edge1": {"read": {"skipped": True}},
    }
    assert list(rackserve_gpus_of_peers(hostvars, list(hostvars), "gpu1", "read")) == ["gpu1", "gpu2"]
    assert rackserve_gpus_of_peers(hostvars, list(hostvars), "edge1", "read") == {}
