"""A copy of the lab's inventory for rollouts: one instance a host, changed as an operator would, by its files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import yaml

from testing.lab import INVENTORY, ROOT, command
from testing.rollout_bundles import bundle, revisions

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAY_LIMIT_S: Final = 3600
ADAPTERS: Final = ("lora-one", "lora-two", "lora-three")
# What the site itself asks a new engine; molecule/full_stack shows that the model knows it.
CASES: Final[list[dict[str, Any]]] = [
    {
        "name": "capital",
        "model": "smollm2",
        "prompt": "What is the capital of France? Answer in one word.",
        "max_tokens": 16,
        "expect": {"contains": "Paris"},
    },
]
# Clients of this machine have one address and one key.
_EDGE: Final[dict[str, Any]] = {
    "nginx_limit_rate": 1000,
    "nginx_limit_burst": 1000,
}


class Site:
    """An inventory in a folder of its own; what is set stays until it is set anew.

    Attributes:
        at: what the fleet is at: the inventory's state whose play ended well last; None where that is not known.
    """

    at: ClassVar[dict[str, Any] | None] = None

    def __init__(self, folder: Path, *, hosts: tuple[str, ...] = ("gpu1", "gpu2"), **settings: object) -> None:
        self.folder = folder
        shutil.copytree(INVENTORY, folder)  # with what its links point at
        shutil.rmtree(folder / "host_vars")
        text = (INVENTORY / "group_vars/vllm_hosts/vllm.yml").read_text(encoding="utf-8")
        self._instance: dict[str, Any] = yaml.safe_load(text)["lab_instance"]
        self.bundle = "one"
        self._state: dict[str, Any] = {}
        groups: dict[str, Any] = yaml.safe_load((folder / "hosts.yml").read_text(encoding="utf-8"))
        rack = groups["all"]["children"]["rack"]["children"]
        rack["vllm_hosts"]["hosts"] = dict.fromkeys(hosts)
        self._write("hosts.yml", groups)
        self._write("group_vars/all/zz_rollout.yml", settings)
        clients = yaml.safe_load((INVENTORY / "group_vars/edge_hosts/nginx.yml").read_text(encoding="utf-8"))
        self._clients: list[dict[str, Any]] = clients["nginx_clients"]
        self._clients[0] |= {"requests_per_minute": 60000, "burst": 10000, "concurrent": 64}
        self.change()
        self.clients()

    def _write(self, name: str, content: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, width=1000), encoding="utf-8")

    def change(
        self,
        instance: Mapping[str, Any] | None = None,
        *,
        vllm: str = "0.32.0",
        revision: str = "first",
        templates: Mapping[str, str] | None = None,
    ) -> None:
        """Write the instance of every host.

        Args:
            instance: keys that differ from the lab's own; those of `extra_args` are added to its own.
            vllm: release.
            revision: of the model, by its name in the bundles.
            templates: files below `templates/`.
        """
        self._state |= {"instance": instance, "vllm": vllm, "revision": revision}
        more = dict(instance or {})
        own = {**self._instance, **more}
        own["extra_args"] = {**self._instance["extra_args"], **more.get("extra_args", {})}
        own["model"] = {**own["model"]}
        if revision != "first":
            own["model"]["revision"] = revisions()[revision]
        self._write("group_vars/vllm_hosts/zz_change.yml", {"vllm_instances": [own], "vllm_gate_cases": CASES})
        runtime = {"vllm": vllm, "flavour": "cpu", "python": "3.11"}
        self._write("group_vars/all/zz_runtime.yml", {"stack_runtime": runtime})
        for name, text in (templates or {}).items():
            (self.folder / "templates" / name).write_text(text, encoding="utf-8")

    def clients(self, *names: str) -> None:
        """Write the edge's clients: the lab's own, and these, each with a key that nobody has."""
        self._state["clients"] = names
        further = [{"name": name, "keys": [{"sha256": f"{number:064x}"}]} for number, name in enumerate(names, start=1)]
        self._write("group_vars/edge_hosts/zz_clients.yml", {**_EDGE, "nginx_clients": [*self._clients, *further]})

    def argv(self, *options: str) -> list[str]:
        """Return the plain play of this site."""
        given = json.dumps({"stack_bundle_path": str(bundle(self.bundle))})
        return ["ansible-playbook", "site.yml", "-i", str(self.folder), "-e", given, *options]

    def apply(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the plain play to its end."""
        Site.at = None
        done = command(*self.argv(*options), timeout=PLAY_LIMIT_S)
        Site.at = self._now if done.returncode == 0 else None
        return done

    def bring(self, **state: Any) -> None:
        """Bring the fleet to where a test begins, unless it is there; options are those of `change`."""
        self.change(**state)
        if Site.at != self._now:
            done = self.apply()
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

    @property
    def _now(self) -> dict[str, Any]:
        return {**self._state, "folder": self.folder, "bundle": self.bundle}

    def start(self, log: Path, *options: str) -> subprocess.Popen[bytes]:
        """Start the plain play in a session of its own, so that it can be killed with all that it started here."""
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
        env["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
        Site.at = None
        with log.open("wb") as output:
            return subprocess.Popen(
                self.argv(*options), stdout=output, stderr=output, cwd=ROOT, env=env, start_new_session=True
            )
