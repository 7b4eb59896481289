"""What the filters decide by themselves; the rest they hand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.ansible.filters.rackserve import (
    rackserve_config,
    rackserve_engine,
    rackserve_reason,
    rackserve_unknown,
    rackserve_unknown_anywhere,
    rackserve_words,
)

ROLES = Path(__file__).parents[2] / "roles"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nginx_limit_burts", ["nginx_limit_burts (is it nginx_limit_burst?)"]),
        ("nginx_exporter_prot", ["nginx_exporter_prot (is it nginx_exporter_port?)"]),
        ("vllm_xyzzy", ["vllm_xyzzy"]),
        ("nginx_limit_burst", []),
        ("nginx_exporter_port", []),
        ("__nginx_anything", []),
        ("stack_lab_name", []),
        ("site_colour", []),
    ],
)
def test_a_misspelt_variable_of_any_role_is_found(name: str, said: list[str]) -> None:
    assert rackserve_unknown_anywhere([name, "ansible_host"], str(ROLES)) == said


def test_a_variable_of_a_role_with_a_longer_name_is_not_the_shorter_ones() -> None:
    assert rackserve_unknown(["nginx_exporter_prot"], "nginx", str(ROLES / "nginx")) == []


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
