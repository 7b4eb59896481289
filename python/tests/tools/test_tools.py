"""Tests of the command-line tools in python/tools."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

TOOLS = Path(__file__).parents[2] / "tools"

README = "# web\n\n<!-- argument_specs:begin -->\n<!-- argument_specs:end -->\nAfter.\n"
SPECS = """---
argument_specs:
  main:
    short_description: Serve pages
    options:
      web_port:
        type: int
        description: Port to listen on.
        default: 80
      web_name:
        type: str
        required: true
        description: Name | of the site.
      web_mode:
        type: str
        description: Mode.
        choices: [plain, tls]
        default: ""
      web_users:
        type: list
        elements: dict
        description: [People., Who may log in.]
        default: []
        options:
          id:
            type: int
            description: Number.
"""
DEFAULTS = '---\n# Note: a port.\nweb_port: 80\n# A required input.\n# web_name:\nweb_mode: ""\nweb_users: []\n'
STACK_SPECS = """---
argument_specs:
  main:
    options:
      stack_root: {type: path, default: /srv}
      stack_bundle: {type: path, required: true}
"""
MAIN = "---\n- name: Install pages\n  ansible.builtin.import_tasks: install.yml\n  tags: [web]\n"


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


role_readme = _tool("role_readme")
check_roles = _tool("check_roles")
measure_memory = _tool("measure_memory")


@pytest.fixture
def role(tmp_path: Path) -> Path:
    files = {
        "README.md": README,
        "meta/argument_specs.yml": SPECS,
        "defaults/main.yml": DEFAULTS,
        "tasks/main.yml": MAIN,
        "tasks/install.yml": "---\n- name: install | Write the pages\n  ansible.builtin.ping:\n",
        "meta/main.yml": "---\ndependencies:\n  - role: stack\n",
    }
    shared = {
        "README.md": README,
        "meta/argument_specs.yml": STACK_SPECS,
        "defaults/main.yml": "---\n# Folder.\nstack_root: /srv\n# stack_bundle:\n",
        "tasks/main.yml": "---\n",
        "vars/main.yml": "---\n__stack_lib: /lib\n",
    }
    files |= {f"../stack/{name}": text for name, text in shared.items()}
    folder = tmp_path / "roles" / "web"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    scenario = tmp_path / "molecule" / "web"
    scenario.mkdir(parents=True)
    (scenario / "molecule.yml").write_text("---\n", encoding="utf-8")
    return folder


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_table_shows_every_variable_with_type_default_and_description(role: Path, tmp_path: Path) -> None:
    assert role_readme.main(["--root", str(tmp_path)]) == 0
    text = (role / "README.md").read_text(encoding="utf-8")
    assert text == (
        "# web\n\n<!-- argument_specs:begin -->\n"
        "| variable | type | default | what |\n|---|---|---|---|\n"
        "| `web_port` | int | `80` | Port to listen on. |\n"
        "| `web_name` | str | required | Name \\| of the site. |\n"
        '| `web_mode` | str | `""` | Mode. One of `plain`, `tls`. |\n'
        "| `web_users` | list of dict | `[]` | People. Who may log in. |\n"
        "| `web_users.id` | int | none | Number. |\n"
        "<!-- argument_specs:end -->\nAfter.\n"
    )


def test_check_names_a_stale_readme_and_changes_nothing(
    role: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert role_readme.main(["--root", str(tmp_path), "--check"]) == 1
    assert "roles/web/README.md" in capsys.readouterr().out
    assert (role / "README.md").read_text(encoding="utf-8") == README


def test_check_accepts_what_was_written(role: Path, tmp_path: Path) -> None:
    role_readme.main(["--root", str(tmp_path)])
    before = (role / "README.md").read_text(encoding="utf-8")
    assert role_readme.main(["--root", str(tmp_path), "--check"]) == 0
    assert role_readme.main(["--root", str(tmp_path)]) == 0
    assert (role / "README.md").read_text(encoding="utf-8") == before


def test_shared_values_are_named_below_the_table(role: Path, tmp_path: Path) -> None:
    _edit(role / "tasks/install.yml", "ping:", "debug: {msg: '{{ stack_root }}{{ __stack_lib }}{{ stack_bundle }}'}")
    assert role_readme.main(["--root", str(tmp_path)]) == 0
    text = (role / "README.md").read_text(encoding="utf-8")
    assert "Shared values, see [stack](../stack/README.md): `stack_bundle`, `stack_root`.\n<!-- arg" in text


def test_two_entry_points_get_a_table_each() -> None:
    text = role_readme.table({"main": {"options": {}}, "remove": {"options": {"web_x": {"type": "str"}}}}, TOOLS, TOOLS)
    assert "Entry point `main`:\n\nNo variables." in text
    assert "Entry point `remove`:" in text


@pytest.mark.parametrize(
    ("line", "findings"),
    [
        ("web_port: 8080", []),
        ("web_prot: 8080", ["example: README.md sets web_prot, which is not in the specification"]),
        ("web_cache_size: 1", []),  # of the role web_cache
        ("other_port: 80", []),
    ],
)
def test_an_example_sets_variables_that_are_there(role: Path, line: str, findings: list[str]) -> None:
    role.with_name("web_cache").mkdir()
    (role / "README.md").write_text(f"{README}\n```yaml\n{line}\n```\n", encoding="utf-8")
    assert check_roles.check(role) == findings


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "<!-- argument_specs:begin -->",
        "<!-- argument_specs:end -->\n<!-- argument_specs:begin -->",
        README + README,
    ],
)
def test_readme_without_its_markers_is_an_error(
    role: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (role / "README.md").write_text(text, encoding="utf-8")
    assert role_readme.main(["--root", str(tmp_path)]) == 2
    assert "argument_specs:begin" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "a: [", "- list\n", "argument_specs: 3\n"])
def test_unreadable_specification_is_an_error(role: Path, tmp_path: Path, text: str | None) -> None:
    path = role / "meta" / "argument_specs.yml"
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")
    assert role_readme.main(["--root", str(tmp_path)]) == 2


def test_well_formed_role_has_no_finding(role: Path, tmp_path: Path) -> None:
    _edit(role / "tasks/install.yml", "ping:", "debug: {msg: '{{ stack_root }}{{ __stack_lib }}{{ stack_bundle }}'}")
    assert check_roles.check(role) == []
    assert check_roles.main(["--root", str(tmp_path)]) == 0


def test_folder_without_roles_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_roles.main(["--root", str(tmp_path)]) == 1
    assert "has no role; set --root" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "finding"),
    [
        ("defaults/main.yml", "web_port: 80\n", "", "specs: web_port is in the specification"),
        ("defaults/main.yml", "# web_name:\n", "", "specs: web_name is in the specification"),
        ("defaults/main.yml", "# web_name:\n", "  # web_name:\n", "specs: web_name is in the specification"),
        ("defaults/main.yml", "web_port: 80", "web_port: 80\nweb_extra: 1", "specs: web_extra is in the defaults"),
        ("defaults/main.yml", "# web_name:", "# web_name:\n# web_more:", "specs: web_more is in the defaults"),
        ("defaults/main.yml", "# web_name:", "web_name: x", "required: web_name is required and has a default"),
        ("defaults/main.yml", "web_port: 80", "# web_port: 80", "required: web_port has no default"),
        ("meta/argument_specs.yml", "argument_specs:", "specs:", "specs: meta/argument_specs.yml has no mapping"),
        ("tasks/main.yml", "---\n", "---\n" + "# x\n" * 40, "main: tasks/main.yml has 44 lines"),
        ("tasks/main.yml", "import_tasks", "include_tasks", "main: task 'Install pages'"),
        ("tasks/main.yml", "  tags", "  when: true\n  tags", "main: task 'Install pages'"),
        ("tasks/install.yml", "---\n", "---\n" + "# x\n" * 120, "tasks: tasks/install.yml has 123 lines"),
        ("README.md", "<!-- argument_specs:begin -->", "", "readme: README.md has not once"),
        ("README.md", "<!-- argument_specs:end -->", "", "readme: README.md has not once"),
        ("meta/main.yml", "role: stack", "role: other", "shared: meta/main.yml does not depend on stack"),
        ("tasks/install.yml", "ping:", "ping: {data: '{{ stack_rot }}'}", "shared: tasks/install.yml names stack_rot,"),
        ("tasks/install.yml", "ping:", "ping: {data: '{{ __stack_x }}'}", "shared: tasks/install.yml names __stack_x,"),
    ],
)
def test_broken_role_is_found(role: Path, tmp_path: Path, *, file: str, old: str, new: str, finding: str) -> None:
    _edit(role / file, old, new)
    findings = check_roles.check(role)
    assert [found for found in findings if found.startswith(finding)], findings
    assert check_roles.main(["--root", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "Install nginx",
        "service | Restart nginx",
        "verify | Verify that /metrics answers",
        "preflight | Validate that the private key matches the certificate",
        "preflight | Require the certificate and its private key",
        "Start stand-ins of {{ engine }}",
    ],
)
def test_a_name_of_verb_and_object_passes(name: str) -> None:
    assert check_roles.name_problem(name) == ""


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Run it", "'it' stands for its object"),
        ("configure | Write its options", "'its' stands for"),
        ("configure | Remove those of an earlier version", "'those' stands for"),
        ("mig | Configure them at every boot", "'them' stands for"),
        ("Copy that", "'that' stands for"),
        ("verify | Wait for a token of each", "'each' stands for"),
        ("configure | Write what nginx reads", "'what' stands for"),
        ("install | Start nginx unless something computes", "'something' stands for"),
        ("See it answer", "it starts with 'See'"),
        ("The hosts", "it starts with 'The'"),
        ("install | install nginx", "it starts with 'install'"),
        ("service | Reboot", "it has no object"),
        ("", "it starts with ''"),
    ],
)
def test_a_name_without_verb_or_object_is_refused(name: str, problem: str) -> None:
    assert check_roles.name_problem(name).startswith(problem)


@pytest.mark.parametrize(
    "task",
    [
        "- name: Run it\n  ansible.builtin.ping:\n",
        "- name: Run the checks\n  block:\n    - name: Run it\n      ansible.builtin.ping:\n",
        "- name: Run the checks\n  block: []\n  rescue:\n    - name: Run it\n      ansible.builtin.ping:\n",
    ],
    ids=["task", "in a block", "in a rescue"],
)
@pytest.mark.parametrize("file", ["tasks/more.yml", "handlers/main.yml"])
def test_names_of_tasks_and_handlers_are_checked(role: Path, file: str, task: str) -> None:
    (role / file).parent.mkdir(exist_ok=True)
    (role / file).write_text(f"---\n{task}")
    assert [found for found in check_roles.check(role) if found.startswith("names: 'Run it'")]


ASSERT = """---
- name: install | Verify the pages
  ansible.builtin.assert:
    that: __web_wrong | length == 0
    fail_msg: "{{ web_name }}: {{ __web_wrong }}"
"""
COMPUTED = "  vars:\n    __web_wrong: '{{ web_name | slow }}'\n"
BLOCK = "---\n- name: install | Verify the site\n" + COMPUTED + "  block:\n"


@pytest.mark.parametrize(
    ("tasks", "of_role"),
    [
        (ASSERT + COMPUTED, None),
        (BLOCK + "".join(f"    {line}\n" for line in ASSERT.splitlines()[1:]), None),
        (ASSERT, "---\n__web_wrong: '{{ web_name | slow }}'\n"),
    ],
    ids=["of the task", "of a block", "of the role"],
)
def test_an_assert_that_computes_a_variable_twice_is_found(role: Path, tasks: str, of_role: str | None) -> None:
    (role / "tasks/install.yml").write_text(tasks)
    if of_role:
        (role / "vars").mkdir()
        (role / "vars/main.yml").write_text(of_role)
    found = check_roles.check(role)
    assert len(found) == 1
    assert found[0].startswith("once: 'install | Verify the pages' in install.yml computes __web_wrong for 'that' and")


@pytest.mark.parametrize(
    "tasks",
    [
        ASSERT,
        ASSERT + "  vars:\n    __web_wrong: plain\n",
        ASSERT.replace("{{ __web_wrong }}", "no") + COMPUTED,
        ASSERT.replace("__web_wrong |", "web_name |") + COMPUTED,
    ],
    ids=["registered", "plain", "only in that", "only in the message"],
)
def test_an_assert_that_computes_nothing_twice_passes(role: Path, tasks: str) -> None:
    (role / "tasks/install.yml").write_text(tasks)
    assert check_roles.check(role) == []


@pytest.mark.parametrize("file", ["site.yml", "playbooks/run_it.yml", "molecule/web/converge.yml"])
@pytest.mark.parametrize(
    "play",
    ["- name: Run it\n  hosts: all\n", "- name: Run the checks\n  hosts: all\n  tasks:\n    - name: Run it\n"],
    ids=["play", "task of a play"],
)
def test_names_of_plays_are_checked(
    role: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, play: str
) -> None:
    assert role.is_dir()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("---\n- name: Run the checks\n  hosts: all\n")
    assert check_roles.main(["--root", str(tmp_path)]) == 0
    path.write_text(f"---\n{play}")
    assert check_roles.main(["--root", str(tmp_path)]) == 1
    assert f"names: 'Run it' in {path.name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "finding"),
    [
        ("meta/argument_specs.yml", "specs: meta/argument_specs.yml is missing"),
        ("tasks/main.yml", "main: tasks/main.yml is missing"),
        ("README.md", "readme: README.md is missing"),
        ("defaults/main.yml", "specs: web_port is in the specification, not in the defaults"),
    ],
)
def test_missing_file_is_found(role: Path, file: str, finding: str) -> None:
    (role / file).unlink()
    assert finding in check_roles.check(role)


@pytest.mark.parametrize(
    ("converge", "found"),
    [
        ("- hosts: all\n  roles:\n    - role: web\n", False),
        ("- hosts: all\n  roles: [web]\n", False),
        ("- hosts: all\n  roles:\n    - role: other\n", True),
        ("- name: All of it\n  ansible.builtin.import_playbook: ../../site.yml\n", True),
        (None, True),
    ],
    ids=["in another's", "in another's by name", "not in another's", "only by an import", "in none"],
)
def test_a_role_without_a_scenario_is_found(role: Path, tmp_path: Path, converge: str | None, *, found: bool) -> None:
    other = (tmp_path / "molecule/web").rename(tmp_path / "molecule/other")
    if converge is not None:
        (other / "converge.yml").write_text(converge, encoding="utf-8")
    expected = ["scenario: no scenario in molecule/ is named web or has it in its converge.yml; add one"]
    assert check_roles.check(role) == (expected if found else [])


def test_what_only_an_engines_log_says_is_read() -> None:
    text = (Path(__file__).parents[1] / "data" / "h200" / "engine_start.log").read_text(encoding="utf-8")
    assert measure_memory.logged(text) == {"tokens": 1111600, "concurrency": 135.69, "compiled": True}
    assert measure_memory.logged("") == {"tokens": None, "concurrency": None, "compiled": False}


def test_an_engine_that_does_not_start_has_no_figures(tmp_path: Path) -> None:
    run = {"name": "x", "model": "m", "engine": {}, "environment": {"PYTHONPATH": str(tmp_path)}}
    (tmp_path / "vllm.py").write_text("raise RuntimeError('no GPU')")
    log = tmp_path / "x.log"
    assert measure_memory.in_process(run, {}, log) is None
    assert "Error" in log.read_text()
