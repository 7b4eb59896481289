"""What the filters decide by themselves; the rest they hand on."""

from __future__ import annotations

import pytest

from rackserve.ansible.filters.rackserve import FilterModule

FILTERS = FilterModule().filters()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"stderr": "noise\nu: vLLM refuses\n", "msg": "failed to validate"}, "u: vLLM refuses"),
        ({"stderr": "", "msg": "Error", "cmd": "/opt/python -I x"}, "/opt/python cannot be run; run the role"),
        ({"msg": "disk full"}, "disk full"),
    ],
)
def test_a_failed_validation_has_one_reason(result: dict[str, str], said: str) -> None:
    assert FILTERS["rackserve_reason"](result).startswith(said)


RAW = [{"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}, "max_num_seqs": 1, "max_model_len": 8}]


def test_peers_serve_the_very_same_instances() -> None:
    read = {"gpus": [], "driver": {}, "host": {"kernel": "6", "glibc": "2.36"}}
    hostvars = {
        "gpu1": {"vllm_instances": RAW, "read": read},
        "gpu2": {"vllm_instances": RAW, "read": read},
        "gpu3": {"vllm_instances": [{**RAW[0], "max_num_seqs": 2}], "read": read},
        "edge1": {"read": {"skipped": True}},
    }
    assert list(FILTERS["rackserve_gpus_of_peers"](hostvars, list(hostvars), "gpu1", "read")) == ["gpu1", "gpu2"]
    assert FILTERS["rackserve_gpus_of_peers"](hostvars, list(hostvars), "edge1", "read") == {}
