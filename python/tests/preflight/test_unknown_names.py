"""Variables that no role knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.preflight import unknown_names

ROLES = Path(__file__).parents[3] / "roles"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nginx_limit_burts", ["nginx_limit_burts (is it nginx_limit_burst?)"]),
        ("nginx_exporter_lisen_address", ["nginx_exporter_lisen_address (is it nginx_exporter_listen_address?)"]),
        ("stack_verify_expct", ["stack_verify_expct (is it stack_verify_expect?)"]),
        ("nginx_https_port", ["nginx_https_port (is it stack_https_port?)"]),
        ("vllm_root", ["vllm_root (is it stack_vllm_root?)"]),
        ("vllm_xyzzy", ["vllm_xyzzy"]),
        ("nginx_limit_burst", []),
        ("nginx_exporter_listen_address", []),
        ("stack_https_port", []),
        ("stack_lab_name", []),
        ("__nginx_anything", []),
        ("__stack_anything", []),
        ("site_colour", []),
    ],
)
def test_a_misspelt_variable_of_any_role_is_found(name: str, said: list[str]) -> None:
    assert unknown_names([name, "ansible_host"], ROLES) == said
