"""Releases that are bad in one way each, and real: what an operator or a supplier could bring, on real vLLM.

Some are changes of the inventory or of the bundle. The others are another release of vLLM (`VEHICLE`) whose runtime
has a plugin that makes its engine bad (bad_release_plugin.py): it is put into the runtime's folder on the hosts, which
no role compares again once the release is complete. The release that serves meanwhile is another folder and stays as
it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from testinfra.host import Host

# What serves before is 0.32.0.
VEHICLE: Final = "0.31.0"
PLUGIN: Final = Path(__file__).with_name("bad_release_plugin.py")
_INFO: Final = "bad_release-1.0.dist-info"
_SITE_PACKAGES: Final = f"/opt/vllm/releases/{VEHICLE}-*/lib/python3*/site-packages"
# A chat template that parses, and that tells the model nothing of what the user said.
WRONG_TEMPLATE: Final = """{% for message in messages %}
<|im_start|>{{ message['role'] }}
Say something.<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""


@dataclass(frozen=True)
class BadRelease:
    """One bad release.

    Attributes:
        name: what is wrong with it.
        caught: gates that may catch it; without any, it is refused before anything is changed.
        instance: keys of the instance that differ.
        vllm: its release; empty for the one that serves.
        plugin: what the plugin does, and its options; empty for a release without one.
        templates: further files of the inventory, below `templates/`.
        revision: the model's revision, by its name in the bundle's site; empty for the one that serves.
    """

    name: str
    caught: frozenset[str]
    instance: Mapping[str, Any] = field(default_factory=dict)
    vllm: str = ""
    plugin: tuple[str, Mapping[str, Any]] | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    revision: str = ""

    def stopped_by(self, output: str, host: str) -> set[str]:
        """Return the gates that failed it on a host, as the run's output names them: `HOST:INSTANCE: GATE: text`.

        Args:
            output: of Ansible, in any number of lines.
            host: where it was stopped.
        """
        words = " ".join(output.split())
        return {gate for gate in self.caught if re.search(rf"\b{re.escape(host)}:[a-z0-9-]+: {gate}: ", words)}

    def install(self, host: Host) -> None:
        """Put the plugin into the vehicle's folder on a host; a release without one needs nothing."""
        if self.plugin is None:
            return
        kind, options = self.plugin
        (packages,) = host.check_output(f"ls -d {_SITE_PACKAGES}").split()
        files = {
            f"{packages}/{PLUGIN.name}": PLUGIN.read_text(encoding="utf-8"),
            f"{packages}/bad_release.json": json.dumps({"kind": kind, "options": dict(options)}),
            f"{packages}/{_INFO}/METADATA": "Metadata-Version: 2.1\nName: bad-release\nVersion: 1.0\n",
            f"{packages}/{_INFO}/entry_points.txt": f"[vllm.general_plugins]\nbad_release = {PLUGIN.stem}:register\n",
        }
        host.check_output(f"mkdir -p {packages}/{_INFO}")
        for path, text in files.items():
            host.check_output(f"cat >{path} <<'END'\n{text}\nEND")


def remove(host: Host) -> None:
    """Take the plugin off a host, whichever it was."""
    names = f"{PLUGIN.name} bad_release.json {_INFO} __pycache__/{PLUGIN.stem}.*"
    for packages in host.run(f"ls -d {_SITE_PACKAGES}").stdout.split():
        host.check_output(f"cd {packages} && rm -rf {names}")


def is_installed(host: Host) -> bool:
    """Whether a plugin is in the vehicle's folder."""
    return bool(host.run(f"ls {_SITE_PACKAGES}/{PLUGIN.name}").rc == 0)


def does_not_start() -> BadRelease:
    """A way to load weights that the model's files are not in: the parser takes it, the engine ends."""
    return BadRelease("does not start", frozenset({"token"}), {"extra_args": {"load-format": "sharded_state"}})


def contradicts_itself() -> BadRelease:
    """Arguments that the parser takes one by one, and the engine refuses together."""
    return BadRelease("contradicts itself", frozenset({"token"}), {"extra_args": {"max-num-batched-tokens": 4}})


def has_wrong_arguments() -> BadRelease:
    """A value that the release's own parser refuses, on the host, before anything is changed."""
    return BadRelease("has wrong arguments", frozenset(), {"extra_args": {"seed": "many"}})


def has_altered_weights() -> BadRelease:
    """The same revision, whose weights the release reads wrong: one layer's output has the other sign."""
    plugin = ("weights", {"name": "layers.12.mlp.down_proj"})
    return BadRelease("has altered weights", frozenset({"golden", "cases"}), vllm=VEHICLE, plugin=plugin)


def has_an_altered_revision() -> BadRelease:
    """Another revision of the model, signed with the bundle, whose weights have a damaged part."""
    return BadRelease("has an altered revision", frozenset({"golden", "cases", "template"}), revision="altered")


def has_a_wrong_chat_template() -> BadRelease:
    """A template of the inventory that leaves out what the user says."""
    instance = {"chat_template": "templates/wrong.jinja"}
    gates = frozenset({"template", "cases", "tools"})
    return BadRelease("has a wrong chat template", gates, instance, templates={"wrong.jinja": WRONG_TEMPLATE})


def is_slower(share: float = 0.35) -> BadRelease:
    """Each step takes longer; with what is beside the steps, an answer takes 30 % longer."""
    return BadRelease("is 30 % slower", frozenset({"speed"}), vllm=VEHICLE, plugin=("slow", {"share": share}))


def hangs(after_s: float = 60) -> BadRelease:
    """The engine's steps end a minute after the first one; /health stays 200."""
    gates = frozenset({"soak", "alerts", "errors", "speed", "cases", "token"})
    return BadRelease("hangs after a minute", gates, vllm=VEHICLE, plugin=("hang", {"after_s": after_s}))


def answers_500(every: int = 50) -> BadRelease:
    """One in fifty requests is answered with 500."""
    gates = frozenset({"errors", "soak"})
    return BadRelease("answers 500 to one in fifty", gates, vllm=VEHICLE, plugin=("errors", {"every": every}))


def breaks_tool_calls() -> BadRelease:
    """The arguments of tool calls are no JSON."""
    return BadRelease("breaks tool calls", frozenset({"tools", "cases"}), vllm=VEHICLE, plugin=("calls", {}))


def bad_releases() -> tuple[BadRelease, ...]:
    """Return all of them: the eight of issue 17, one of them in two ways, and arguments that contradict each other."""
    return (
        does_not_start(),
        contradicts_itself(),
        has_wrong_arguments(),
        has_altered_weights(),
        has_an_altered_revision(),
        has_a_wrong_chat_template(),
        is_slower(),
        hangs(),
        answers_500(),
        breaks_tool_calls(),
    )
