"""The options of nested inputs: in the argument specs, in docs and in ansible-doc as in the schemas, and never judged
by Ansible before them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from pydantic import BaseModel, Field

import argument_specs
import role_readme
from rackserve._schema import Strict
from rackserve.vllm import Instance

ROOT = Path(__file__).parents[3]
SPECS = {path.parts[-3]: path for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))}
OPTIONS: dict[str, dict[str, Any]] = {
    variable: option
    for path in SPECS.values()
    for entry in yaml.safe_load(path.read_text("utf-8"))["argument_specs"].values()
    for variable, option in entry["options"].items()
}
OWNERS = {
    variable: role for role, path in SPECS.items() for variable in OPTIONS if f"\n      {variable}:" in path.read_text()
}
LISTS = sorted(variable for variable in argument_specs.INPUTS if OPTIONS[variable]["type"] == "list")


def fields_of(model: type[BaseModel]) -> set[str]:
    """Every key of a schema, and those inside as `lora.name`."""
    found = set()
    for name, field in model.model_fields.items():
        key = field.alias or name
        found |= {key} | {f"{key}.{inner}" for one in models_in(field.annotation) for inner in fields_of(one)}
    return found


def models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def keys_of(options: dict[str, Any]) -> set[str]:
    """Every key of options, in the same form."""
    inner = {f"{name}.{key}" for name, option in options.items() for key in keys_of(option.get("options", {}))}
    return set(options) | inner


def documented(variable: str) -> set[str]:
    """The keys in the table on the input's page, or in the README of its role."""
    if mention := role_readme.MENTION.search(OPTIONS[variable]["description"]):
        text = (ROOT / mention[1]).read_text("utf-8")
        table = text.split(f"<!-- keys of {variable}:begin -->")[1].split(f"<!-- keys of {variable}:end -->")[0]
        return set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))
    table = (ROOT / "roles" / OWNERS[variable] / "README.md").read_text("utf-8")
    return set(re.findall(rf"^\| `{variable}\.([^`]+)`", table, re.MULTILINE))


@pytest.mark.parametrize("variable", argument_specs.INPUTS)
def test_specification_and_docs_have_the_keys_of_the_schema_and_no_others(variable: str) -> None:
    keys = fields_of(argument_specs.INPUTS[variable])
    assert keys_of(OPTIONS[variable]["options"]) == keys
    assert documented(variable) == keys


def test_the_repository_is_as_written() -> None:
    assert argument_specs.main(["--check"]) == 0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of what the tool reads and writes."""
    for path in [*SPECS.values(), *ROOT.glob("docs/**/*.md")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def run(site: Path, *options: str) -> int:
    return argument_specs.main(["--root", str(site), *options])


def spec_of(site: Path, role: str) -> Path:
    return site / "roles" / role / "meta" / "argument_specs.yml"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


class Widened(Instance):
    colour: str = Field(default="red", description="Colour of the instance.")


def test_a_key_that_only_the_schema_has_is_stale_and_is_written(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = spec_of(site, "vllm").read_text("utf-8")
    monkeypatch.setattr(argument_specs, "INPUTS", {**argument_specs.INPUTS, "vllm_instances": Widened})
    assert run(site, "--check") == 1
    said = capsys.readouterr().out
    assert "roles/vllm/meta/argument_specs.yml: is stale" in said
    assert "docs/reference/instances.md: is stale" in said
    assert spec_of(site, "vllm").read_text("utf-8") == before
    assert run(site) == 0
    assert run(site, "--check") == 0
    added = "          colour:\n            type: str\n            description: Colour of the instance.\n"
    assert spec_of(site, "vllm").read_text("utf-8").replace(f"{added}            default: red\n", "") == before
    table = "| `colour` | str | `red` | Colour of the instance. |\n"
    assert table in (site / "docs/reference/instances.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("role", "old", "new"),
    [
        ("vllm", "          max_num_seqs:\n", "          max_num_seq:\n"),
        ("nginx", "            description: Steady rate of requests.\n", "            description: Rate.\n"),
    ],
)
def test_a_key_or_a_description_of_its_own_is_stale(site: Path, role: str, old: str, new: str) -> None:
    edit(spec_of(site, role), old, new)
    assert run(site, "--check") == 1


def test_what_is_written_by_hand_stays_as_it_is(site: Path) -> None:
    before = {role: spec_of(site, role).read_text("utf-8") for role in SPECS}
    block = rf"        {argument_specs.NOTE}\n        options:\n(?: {{10}}.*\n)*"
    bare = {role: re.sub(block, "", text) for role, text in before.items()}
    assert {role for role in SPECS if bare[role] != before[role]} == {OWNERS[name] for name in argument_specs.INPUTS}
    for role, text in bare.items():
        spec_of(site, role).write_text(text, "utf-8")
    assert run(site) == 0
    assert {role: spec_of(site, role).read_text("utf-8") for role in SPECS} == before


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "roles/vllm/meta/argument_specs.yml",
            ("        elements: raw\n        required: true\n", "        elements: dict\n        required: true\n"),
            "vllm_instances has elements: dict, so that Ansible would judge it before its schema; set elements: raw",
        ),
        (
            "roles/vllm/meta/argument_specs.yml",
            ("      vllm_instances:\n", "      vllm_limits:\n        type: dict\n      vllm_instances:\n"),
            "vllm_limits is nested and has no schema; name its schema in INPUTS",
        ),
        (
            "docs/reference/edge.md",
            ("keys of nginx_clients:", "keys of nginx_client:"),
            "docs/reference/edge.md: has a table of nginx_client, which is no input with a schema",
        ),
        (
            "docs/reference/edge.md",
            ("<!-- keys of nginx_clients:begin -->\n", ""),
            "docs/reference/edge.md: must have the table of nginx_clients once",
        ),
    ],
)
def test_what_cannot_be_written_is_named(
    site: Path, file: str, change: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(site / file, *change)
    assert run(site) == 2
    assert said in capsys.readouterr().err


class Silent(Strict):
    name: str


def test_a_key_without_description_is_named() -> None:
    with pytest.raises(argument_specs.SpecError, match=r"Silent\.name has no description; set Field"):
        argument_specs.options_of(Silent)


class Inner(Strict):
    size: int = Field(default=1, description="Size.")


class Wide(Strict):
    text: str | None = Field(default=None, description="Text.")
    mixed: list[int | str] = Field(default=[], description="Mixed.")
    kinds: list[typing.Literal["a", "b"]] = Field(description="Kinds.")
    inner: Inner | None = Field(default=None, description="Inner.")
    inners: list[Inner] = Field(default=[], description="Inners.")
    free: dict[str, int] = Field(default={}, description="Free.")


def test_types_of_a_schema_become_those_of_ansible_and_required_keys_come_first() -> None:
    size = {"size": {"type": "int", "description": "Size.", "default": 1}}
    found = argument_specs.options_of(Wide)
    assert list(found) == ["kinds", "text", "mixed", "inner", "inners", "free"]
    assert found == {
        "kinds": {
            "type": "list",
            "elements": "str",
            "required": True,
            "description": "Kinds.",
            "choices": ["a", "b"],
        },
        "text": {"type": "str", "description": "Text."},
        "mixed": {"type": "list", "elements": "raw", "description": "Mixed.", "default": []},
        "inner": {"type": "dict", "description": "Inner.", "options": size},
        "inners": {"type": "list", "elements": "dict", "description": "Inners.", "default": [], "options": size},
        "free": {"type": "dict", "description": "Free.", "default": {}},
    }


def errors_of_ansible(variable: str, option: dict[str, Any], value: object) -> list[str]:
    """Validate as the task does that Ansible puts before a role."""
    found = ArgumentSpecValidator({variable: option}).validate({variable: value}, validate_role_argument_spec=True)
    return [str(message) for message in found.error_messages]


@pytest.mark.parametrize("variable", LISTS)
def test_ansible_leaves_the_items_of_a_list_to_the_schema(variable: str) -> None:
    wrong = [{"no_such_key": 1}, "text"]
    assert errors_of_ansible(variable, OPTIONS[variable], wrong) == []
    assert errors_of_ansible(variable, {**OPTIONS[variable], "elements": "dict"}, wrong[:1])


def test_ansible_judges_the_one_dict_that_nothing_else_judges() -> None:
    right = {"vllm": "0.32.0", "flavour": "cpu", "python": "3.11"}
    assert errors_of_ansible("stack_runtime", OPTIONS["stack_runtime"], right) == []
    (said,) = errors_of_ansible("stack_runtime", OPTIONS["stack_runtime"], {**right, "flavour": "rocm"})
    assert said == "value of flavour must be one of: cpu, cuda, got: rocm found in stack_runtime"


def test_ansible_doc_shows_the_keys_of_an_instance() -> None:
    command = [
        str(Path(sys.executable).with_name("ansible-doc")),
        "--json",
        "-t",
        "role",
        "-r",
        str(ROOT / "roles"),
        "vllm",
    ]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    option = json.loads(shown)["vllm"]["entry_points"]["main"]["options"]["vllm_instances"]
    assert keys_of(option["options"]) == fields_of(Instance)
    assert option["options"]["dtype"]["choices"] == ["auto", "bfloat16", "float16", "float32"]
