"""Whatever a role writes on a host, its `vars/owned.yml`, or another role's, declares: the next role cannot forget."""

from __future__ import annotations

import re
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jinja2
import jinja2.nativetypes
import pytest
import yaml

from rackserve.bundle._manifest import Manifest, Model
from rackserve.drift import Owned, owned_by_roles
from rackserve.errors import InputError
from rackserve.programs.host_state._patterns import below, matches
from rackserve.vllm import HostOptions, HostState, host_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "roles"
NESTED = ("block", "rescue", "always")
GROUPS = ("vllm_hosts", "edge_hosts", "monitoring_hosts")
REVISION = "0" * 40
INSTANCE = {
    "name": "chat",
    "model": {"repo": "o/m", "revision": REVISION},
    "max_num_seqs": 1,
    "max_model_len": 8,
    "port": 8000,
}
OPTIONS = HostOptions(
    vllm="0.32.0",
    release="0.32.0-0123",
    templates=ROLES / "vllm/templates",
    flavour="cuda",
    listen_address="10.0.0.5",
    allowed_clients=[],
    cpu_kvcache_gib=1,
    shutdown_timeout=60,
    start_timeout=600,
    serial_starts=False,
    memory_max="95%",
    root="/opt/vllm",
    hf_home="/var/cache/huggingface",
    site=Path("/none"),
)
# Options that name a path which a task writes, by the last part of the module's name.
WRITES = {
    "copy": ("dest",),
    "template": ("dest",),
    "file": ("path",),
    "lineinfile": ("path",),
    "blockinfile": ("path",),
    "get_url": ("dest",),
    "unarchive": ("dest",),
    "bundle_transfer": ("dest",),
    "hf_snapshot": ("home",),
    "vllm_release": ("root",),
    "rackserve_driver": ("keep",),
}
SYSTEMD = ("systemd_service", "systemd", "service")
# Name: why it is not declared.
ELSEWHERE = {
    "x.service": "the driver's own services, where there are any: units nvidia-*",
    "/var/lib/rackserve/nvidia-installer.run": "removed at the end of the same tasks",
    "/var/lib/rackserve/mok/hash": "removed at the end of the same tasks",
}


class _Any(jinja2.Undefined):
    """A value that only a run knows stands for some text."""

    def __str__(self) -> str:
        return "x"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    __html__ = __str__


class _Filters(dict[str, Any]):
    """Filters of Ansible and of ours that no path needs: they return their value."""

    OWN: ClassVar[dict[str, Any]] = {
        "int": lambda value, *_: value,
        "rackserve_ports": lambda raw: [one.get("port", 8000) for one in raw],
        "length": lambda value: len(value) if isinstance(value, str | list | dict) else 1,
        "basename": lambda path: str(path).rpartition("/")[2],
        "dirname": lambda path: str(path).rpartition("/")[0],
        "dict2items": lambda value: (
            [{"key": key, "value": value[key]} for key in value] if isinstance(value, dict) else value
        ),
    }

    def __missing__(self, name: str) -> Any:
        return self.OWN.get(name, lambda value, *_, **__: value)

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, _: Any = None) -> Any:
        return self.OWN.get(name) or super().get(name) or self[name]


def environment() -> jinja2.nativetypes.NativeEnvironment:
    made = jinja2.nativetypes.NativeEnvironment(undefined=_Any)
    made.filters, made.tests = _Filters(made.filters), _Filters(made.tests)
    made.globals["lookup"] = made.globals["query"] = lambda *_, **__: _Any()
    return made


JINJA = environment()


def constants(role: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys(("stack", "bundle", role)):
        for part in ("defaults", "vars"):
            path = ROLES / name / part / "main.yml"
            if path.is_file():
                found |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    manifest = Manifest("site", 1, None, (), (Model("o/m", REVISION, "models/m", 1),), (), (), None, ())
    plan = host_plan([INSTANCE], OPTIONS, manifest, Path("/none"), HostState())
    return {**found, "__vllm_plan": asdict(plan), "__stack_instances": [INSTANCE]}


def fill(value: Any, known: dict[str, Any], depth: int = 8) -> Any:
    """Return a value with its expressions filled in; what only a run knows is some text."""
    if isinstance(value, dict):
        return {key: fill(one, known, depth) for key, one in value.items()}
    if isinstance(value, list):
        return [fill(one, known, depth) for one in value]
    if not isinstance(value, str) or "{{" not in value or depth == 0:
        return value
    names = set(re.findall(r"\b[a-z_]\w*", value))
    there = {name: fill(known[name], known, depth - 1) for name in names & set(known)}
    return JINJA.from_string(value).render(**there)


def tasks_of(items: Any, outer: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield tasks, those of blocks too, with the variables that they set."""
    for item in items or []:
        variables = {**outer, **item.get("vars", {})}
        if any(key in item for key in NESTED):
            for key in NESTED:
                yield from tasks_of(item.get(key), variables)
        else:
            yield item, variables


def written(role: Path) -> Iterator[tuple[str, str]]:
    """Yield what a role writes: file, unit, package, user or group, and its name."""
    known = constants(role.name)
    for path in sorted([*(role / "tasks").glob("*.yml"), *(role / "handlers").glob("*.yml")]):
        for task, variables in tasks_of(yaml.safe_load(path.read_text(encoding="utf-8")), {}):
            yield from _written(task, {**known, **variables})


def _written(task: dict[str, Any], known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    items = fill(task.get("loop", [None]), known)
    loop_var = task.get("loop_control", {}).get("loop_var", "item")
    for item in items if isinstance(items, list) else [None]:
        there = known if item is None else {**known, loop_var: item}
        for key, value in task.items():
            module = key.rpartition(".")[2]
            known_module = module in {*WRITES, *SYSTEMD, "user", "group", "rackserve_packages"}
            options = fill(value, there) if known_module and isinstance(value, dict) else {}
            if options.get("state") == "absent":
                continue
            for option in WRITES.get(module, ()):
                if option in options:
                    yield "file", _target(module, options[option], options)
            if module in SYSTEMD and options.get("name") and options.get("state") != "stopped":
                yield "unit", str(options["name"])
            if module in ("user", "group"):
                yield module, str(options["name"])
            if module == "rackserve_packages":
                yield from (("package", str(name)) for name in options["names"] if name != "x")


def _target(module: str, dest: Any, options: dict[str, Any]) -> str:
    if module == "copy" and str(dest).endswith("/"):
        name = str(options.get("src", "x")).rstrip("/").rpartition("/")[2]
        return f"{dest}{name}" if "." in name else f"{dest}x.json"
    return str(dest)


def declared() -> dict[str, dict[str, Any]]:
    known = {role.name: constants(role.name) for role in ROLES.iterdir()}
    every = {name: value for found in known.values() for name, value in found.items()}
    return owned_by_roles(ROLES, GROUPS, lambda value: fill(value, {**every, "nginx_http_port": 80}))


DECLARED = declared()


def union(key: str) -> list[str]:
    return [one for owned in DECLARED.values() for one in owned[key]]


def is_declared(kind: str, name: str) -> bool:
    if kind == "file":
        files, whole = union("files"), [*union("trees"), *union("changing")]
        return matches(name, files) or below(name, whole) or name in union("folders") or _leads(name, [*files, *whole])
    if kind == "unit":
        return any(fnmatchcase(name, pattern) for pattern in union("units"))
    if kind == "package":
        return any(fnmatchcase(name, pattern) for pattern in union("packages"))
    return name in union(f"{kind}s")


def _leads(name: str, patterns: list[str]) -> bool:
    """Return whether it is a folder on the way to what is declared: its mode and owner are compared too."""
    return any(matches(parent, [name]) for one in patterns for parent in map(str, Path(one).parents))


@pytest.mark.parametrize("role", sorted(path.name for path in ROLES.iterdir() if path.is_dir()))
def test_a_role_writes_nothing_that_is_not_declared(role: str) -> None:
    missing = sorted({one for one in written(ROLES / role) if one[1] not in ELSEWHERE and not is_declared(*one)})
    assert missing == [], f"declare them in roles/{role}/vars/owned.yml (docs/reference/drift.md)"


def test_what_is_not_declared_is_seen(tmp_path: Path) -> None:
    (tmp_path / "roles/chrony/tasks").mkdir(parents=True)
    tasks = [
        {
            "block": [
                {"name": "a", "ansible.builtin.template": {"src": "a.j2", "dest": "{{ item }}/a"}, "loop": ["/etc/c"]}
            ],
        },
        {"name": "b", "ansible.builtin.systemd_service": {"name": "chrony.service", "state": "started"}},
        {"name": "c", "rackserve_packages": {"names": ["chrony"]}},
        {"name": "d", "ansible.builtin.user": {"name": "chrony"}},
        {"name": "e", "ansible.builtin.file": {"path": "/etc/gone", "state": "absent"}},
        {"name": "f", "ansible.builtin.copy": {"dest": "/usr/local/lib/rackserve/planted.py", "content": ""}},
    ]
    (tmp_path / "roles/chrony/tasks/install.yml").write_text(yaml.safe_dump(tasks))
    found = list(written(tmp_path / "roles/chrony"))
    assert found == [
        ("file", "/etc/c/a"),
        ("unit", "chrony.service"),
        ("package", "chrony"),
        ("user", "chrony"),
        ("file", "/usr/local/lib/rackserve/planted.py"),
    ]
    assert not any(is_declared(*one) for one in found)


def test_every_role_that_changes_hosts_declares_something() -> None:
    changing = {role.name for role in ROLES.iterdir() if role.is_dir() and list(written(role))}
    assert changing - set(DECLARED) == set()


def test_a_path_of_a_role_is_seen() -> None:
    """The test would pass too if it saw no task: some of the paths that it has to see."""
    seen = {one for role in ROLES.iterdir() if role.is_dir() for one in written(role)}
    for path in (
        "/etc/nginx/tls/server.crt",
        "/etc/nginx/tls/server.key",
        "/etc/prometheus/alertmanager.yml",
        "/usr/local/lib/rackserve/host_state.pyz",
        "/var/cache/huggingface",
        "/etc/systemd/system/vllm-proxy@chat.socket.d/10-instance.conf",
    ):
        assert ("file", path) in seen
    assert {("unit", "nginx.service"), ("user", "vllm"), ("group", "vllm"), ("package", "nginx")} <= seen
    assert len(seen) > 100


def test_a_host_gets_the_declarations_of_its_groups_only() -> None:
    edge = owned_by_roles(ROLES, ["edge_hosts"], lambda value: fill(value, constants("nginx")))
    assert "nginx" in edge
    assert "stack" in edge
    assert not {"vllm", "prometheus"} & set(edge)
    assert set(owned_by_roles(ROLES, GROUPS, lambda value: fill(value, constants("nginx")), only=["nginx"])) == {
        "nginx"
    }


def test_the_packages_of_a_role_are_declared_by_its_constants() -> None:
    assert {"nginx", "nftables", "lua-cjson"} <= set(DECLARED["nginx"]["packages"])


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ({"hosts": "all", "file": ["/etc/a"]}, "file"),
        ({"hosts": "all", "files": "/etc/a"}, "files"),
        ({"hosts": "all", "ports": ["ssh"]}, "ports"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_refused(tmp_path: Path, declaration: dict[str, Any], said: str) -> None:
    (tmp_path / "web/vars").mkdir(parents=True)
    (tmp_path / "web/vars/owned.yml").write_text(yaml.safe_dump({"__web_owned": declaration}))
    with pytest.raises(InputError, match=rf"web/vars/owned\.yml: .*{said}"):
        owned_by_roles(tmp_path, [], lambda value: value)


def test_every_key_of_a_declaration_is_described() -> None:
    page = (ROOT / "docs/reference/drift.md").read_text(encoding="utf-8")
    assert [key for key in Owned.model_fields if f"| `{key}` |" not in page] == []
