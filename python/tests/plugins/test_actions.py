"""Actions read the bundle once a run, and make a host's plan of what was read; refusals are one message."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.plugins.action import ActionBase

from rackserve.ansible.action import bundle_manifest, vllm_plan
from rackserve.bundle._manifest import Manifest, Model
from testing.model_folders import Layout

ROLES = Path(__file__).parents[3] / "roles"
REVISION = "0" * 40
MANIFEST = Manifest("site", 1, None, (), (Model("o/m", REVISION, "models/m", 1),), (), (), None, ())
TEXT = MANIFEST.to_bytes().decode()
INSTANCE = {"name": "a", "model": {"repo": "o/m", "revision": REVISION}, "max_num_seqs": 1, "max_model_len": 8}
OPTIONS = {
    "vllm": "0.32.0",
    "release": "0.32.0-0123",
    "templates": str(Path(__file__).parents[3] / "roles/vllm/templates"),
    "flavour": "cpu",
    "listen_address": "10.0.0.5",
    "allowed_clients": [],
    "cpu_kvcache_gib": 1,
    "shutdown_timeout": "60",
    "start_timeout": 600,
    "serial_starts": False,
    "memory_max": "95%",
    "root": "/opt/vllm",
    "hf_home": "/hf",
    "site": "/none",
}


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_, **__: {})


def run(plugin: Any, **asked: Any) -> dict[str, Any]:
    action = plugin.ActionModule.__new__(plugin.ActionModule)
    action._task = SimpleNamespace(args=asked)
    found: dict[str, Any] = action.run(task_vars={"inventory_hostname": "gpu1"})
    return found


def plan(*instances: dict[str, Any], path: str = "/none") -> dict[str, Any]:
    bundle = {"path": path, "text": TEXT}
    read: dict[str, Any] = {"gpus": [], "adapters": {}, "written": []}
    return run(vllm_plan, instances=list(instances), options=OPTIONS, bundle=bundle, **read)


def test_a_manifest_is_returned_as_it_was_signed(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(TEXT)
    assert run(bundle_manifest, path=str(tmp_path), known={})["text"] == TEXT


def test_a_manifest_that_the_run_has_read_is_not_read_again() -> None:
    known = {"path": "/gone", "text": TEXT}
    assert run(bundle_manifest, path="/gone", known=known)["text"] == TEXT


def test_another_bundle_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(TEXT)
    known = {"path": "/gone", "text": "of another bundle"}
    assert run(bundle_manifest, path=str(tmp_path), known=known)["text"] == TEXT


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    refused = run(bundle_manifest, path=str(tmp_path), known={})
    assert refused["failed"]
    assert refused["msg"].startswith(f"no bundle at {tmp_path}")


def test_a_plan_is_plain_data() -> None:
    found = plan(INSTANCE)
    assert found["changed"] is False
    (one,) = found["instances"]
    assert one["unit"] == f"vllm@a.{one['digest']}.service"
    assert yaml.safe_load(yaml.safe_dump(found)) == found


def test_what_goes_off_by_itself_is_a_warning_that_names_the_host(tmp_path: Path) -> None:
    assert plan(INSTANCE)["notes"] == []
    Layout("LlamaForCausalLM", "llama", template="").write(tmp_path / "models/m")
    (tmp_path / "models/m/chat_template.jinja").write_text("{{ tools }}")
    found = plan(INSTANCE, path=str(tmp_path))
    assert found["warnings"] == found["notes"]
    assert any(note.startswith("gpu1: instance 'a': tool calls of o/m come as text") for note in found["notes"])


def test_instances_that_cannot_be_served_are_refused_for_their_host() -> None:
    refused = plan({**INSTANCE, "extra_args": {"swap-space": 4}})
    assert refused["failed"]
    assert refused["msg"].startswith("gpu1, nothing was changed: vllm_instances: instance 'a': extra_args.swap-space")


def tasks_of(path: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(path.read_text()) or []


def imports_after_end_role(tasks: list[dict[str, Any]]) -> list[str]:
    """Return the tasks after which an earlier end_role does not hold: it lasts until a task of another role."""
    ends = [position for position, task in enumerate(tasks) if task.get("ansible.builtin.meta") == "end_role"]
    return [task["name"] for task in tasks[ends[0] :] if "ansible.builtin.import_role" in task] if ends else []


def test_no_role_ends_and_then_imports_another() -> None:
    files = sorted(ROLES.glob("*/tasks/*.yml"))
    assert {str(path): imports_after_end_role(tasks_of(path)) for path in files} == {str(path): [] for path in files}
    wrong: list[dict[str, Any]] = [
        {"name": "a", "ansible.builtin.meta": "end_role"},
        {"name": "b", "ansible.builtin.import_role": {}},
    ]
    assert imports_after_end_role(wrong) == ["b"]
