"""The role `stack`, on this machine: what several roles share is declared, and checked, in one place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rackserve.ansible.module_utils import (
    rackserve_driver_host,
    rackserve_edge,
    rackserve_generations,
    rackserve_host,
)
from rackserve.ansible.modules import host_evidence, vllm_generation
from rackserve.programs import vllm_probe
from rackserve.vllm import _files

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "roles"
GIVEN: dict[str, Any] = {
    "stack_runtime": {"vllm": "0.32.0", "flavour": "cpu", "python": "3.11"},
    "stack_bundle_path": "/bundle",
    "stack_trust_file": "/trust.yml",
}


def play(folder: Path, role: str, *tasks: dict[str, Any], **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a role alone in check mode, with no tag of its own: what is left is the role `stack`, and `tasks`."""
    plays = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": [role], "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(plays), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(folder / "t")}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(folder / "play.yml")]
    extra = ["--check", "--tags", "none_of_its_own", "--extra-vars", json.dumps({**GIVEN, **variables})]
    return subprocess.run(
        [*command, *extra], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_role_alone_refuses_a_misspelt_variable_of_any_role(tmp_path: Path) -> None:
    done = play(tmp_path, "nginx_exporter", stack_verify_expct="Paris", grafana_prot=1)
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "grafana_prot (is it grafana_port?), stack_verify_expct (is it stack_verify_expect?) on localhost" in said


def test_a_role_alone_takes_known_variables(tmp_path: Path) -> None:
    done = play(tmp_path, "nginx_exporter", stack_verify_expect="Paris", grafana_port=1, site_colour="red")
    assert done.returncode == 0, done.stdout


def test_a_role_alone_refuses_a_shared_value_of_the_wrong_type(tmp_path: Path) -> None:
    done = play(tmp_path, "nginx_exporter", stack_runtime={"vllm": "0.32.0", "flavour": "rocm", "python": "3.11"})
    assert done.returncode != 0
    assert "value of flavour must be one of: cpu, cuda, got: rocm" in " ".join(done.stdout.split())


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir() if path.name != "stack"))
def test_every_role_depends_on_it(role: str) -> None:
    meta = yaml.safe_load((ROLES / role / "meta" / "main.yml").read_text(encoding="utf-8"))
    assert meta["dependencies"] == [{"role": "stack"}]


CUDA = {"stack_runtime": {**GIVEN["stack_runtime"], "flavour": "cuda"}}
ONE = {"vllm_instances": [{"name": "a", "model": {"repo": "o/m", "revision": "0" * 40}}]}


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({**CUDA, **ONE}, "bundle"),
        (CUDA, "preinstalled"),
        (ONE, "preinstalled"),
        ({**CUDA, **ONE, "nvidia_driver_enabled": False}, "preinstalled"),
        ({"nvidia_driver_enabled": True}, "bundle"),
        ({**CUDA, **ONE, "nvidia_driver_source": "runfile"}, "runfile"),
    ],
)
def test_what_preflight_promises_is_the_driver_that_is_sent_and_installed(
    tmp_path: Path, given: dict[str, Any], source: str
) -> None:
    said = "installs {{ nvidia_driver_enabled }}, sends {{ __nvidia_driver_request.source }}"
    shown = {"debug": {"msg": said + ", promises {{ __preflight_wanted.driver_source }}."}, "tags": ["always"]}
    done = play(tmp_path, "preflight", shown, **given)
    assert f"installs {source != 'preinstalled'}, sends {source}, promises {source}." in done.stdout, done.stdout


def test_a_driver_that_cannot_be_is_refused_by_the_first_role_that_reads_it(tmp_path: Path) -> None:
    done = play(tmp_path, "preflight", nvidia_driver_source="runfle")
    assert done.returncode != 0
    assert "value of nvidia_driver_source must be one of" in " ".join(done.stdout.split())


CONSTANTS = yaml.safe_load((ROLES / "stack" / "vars" / "main.yml").read_text(encoding="utf-8"))


def constant(name: str) -> str:
    """Return a path of roles/stack/vars, with those before it in place of their names."""
    text = str(CONSTANTS[name])
    for other in CONSTANTS:
        if other in text:
            text = text.replace(f"{{{{ {other} }}}}", constant(other))
    return text


@pytest.mark.parametrize(
    ("literal", "path"),
    [
        (vllm_probe.LIVE, constant("__stack_instance_dir") + "/{}/current"),
        (vllm_probe.SETTINGS, constant("__stack_instance_dir") + "/{}/generations/{}/probe.json"),
        (vllm_probe.RECORD, constant("__stack_probe_dir") + "/{}.json"),
        (vllm_probe.GOLDEN, constant("__stack_golden_dir") + "/{}.golden.json"),
        (vllm_probe.DRAINED, constant("__stack_host_state") + "/drained/{}"),
        (vllm_probe.METRICS, constant("__stack_metrics_dir")),
        (_files.CONFIG, constant("__stack_instance_dir")),
        (_files.LIB, constant("__stack_lib")),
        (_files.METRICS, constant("__stack_metrics_dir")),
        (rackserve_generations.INSTANCES, constant("__stack_instance_dir")),
        (vllm_generation._GOLDEN, constant("__stack_golden_dir")),
        (vllm_generation._METRICS, constant("__stack_metrics_dir")),
        (vllm_generation._RECORD, constant("__stack_probe_dir")),
        (host_evidence.PROBE, vllm_probe.RECORD),
        (host_evidence.DRAINED, vllm_probe.DRAINED),
        (rackserve_driver_host.CONFIG, constant("__stack_apt_config")),
        (rackserve_edge.Places().state, constant("__stack_rotation_state")),
        (rackserve_host.LOCK, constant("__stack_host_state") + "/.lock"),
    ],
)
def test_a_path_in_what_runs_on_a_host_is_the_one_of_the_roles(literal: str, path: str) -> None:
    assert literal == path
