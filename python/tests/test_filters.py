"""What the filters decide by themselves; the rest they hand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.ansible.filters.rackserve import rackserve_unknown, rackserve_unknown_anywhere

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
