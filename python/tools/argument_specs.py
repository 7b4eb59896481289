"""Writes what the schemas say about nested inputs into the roles' argument specs and into the tables of docs.

A list of an input has `elements: raw`: `ansible-doc` shows its options, and Ansible leaves them to the schema, whose
messages are better. The one dict, a vLLM runtime, has no other check than Ansible's.

In docs, the table of an input is between `<!-- keys of VARIABLE:begin -->` and `<!-- keys of VARIABLE:end -->`, on the
page that the input's description mentions. An input that mentions no page has its keys in the role's README.

    python python/tools/argument_specs.py           # writes the options and the tables
    python python/tools/argument_specs.py --check   # changes nothing; exit 1 names the stale files
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from rackserve.bundle._recipe import RuntimeRecipe
from rackserve.edge._backend import Backend
from rackserve.edge._clients import Client
from rackserve.monitoring._alert_routes import AlertReceiver
from rackserve.monitoring._remote_write import RemoteWrite
from rackserve.monitoring._scrape_jobs import Job
from rackserve.monitoring._scrape_plan import Target, VllmTarget
from rackserve.preflight._driver_inputs import MigLayout
from rackserve.vllm import Instance
from rackserve.vllm._gate_cases import GateCase
from role_readme import MENTION, ReadmeError, read_specs, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

INPUTS: Final[Mapping[str, type[BaseModel]]] = {
    "alertmanager_receivers": AlertReceiver,
    "nginx_backends": Backend,
    "nginx_clients": Client,
    "nvidia_driver_mig": MigLayout,
    "prometheus_edge_targets": Target,
    "prometheus_gpu_targets": Target,
    "prometheus_nginx_targets": Target,
    "prometheus_node_targets": Target,
    "prometheus_remote_write": RemoteWrite,
    "prometheus_scrape_jobs": Job,
    "prometheus_vllm_targets": VllmTarget,
    "stack_runtime": RuntimeRecipe,
    "vllm_gate_cases": GateCase,
    "vllm_instances": Instance,
}
# Inputs without options of their own: the list of another role, and keys or values that a site chooses.
WITHOUT: Final = {
    "bundle_instances",
    "prometheus_external_labels",
    "stack_addresses",
    "stack_driver_serial",
    "stack_rollback_from",
    "stack_rollout_steps",
}
NOTE: Final = "# Written by python/tools/argument_specs.py."
HEADER: Final = ("| key | type | default | what |", "|---|---|---|---|")
_WIDTH: Final = 120
_TYPES: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list"}
_MARKER: Final = re.compile(r"<!-- keys of (\w+):begin -->\n(.*?)<!-- keys of \1:end -->", re.DOTALL)


class SpecError(Exception):
    """An input whose options or table cannot be written as the specification, the schema or the page is now."""


def options_of(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Returns the keys of a schema as options of an argument spec, the required ones first.

    Raises:
        SpecError: A key has no description.
    """
    schema = model.model_json_schema()
    return _options(schema, schema.get("$defs", {}))


def _options(schema: dict[str, Any], models: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, about in schema["properties"].items():
        if "description" not in about:
            raise SpecError(f"{schema['title']}.{name} has no description; set Field(description=…)")
        option = _type(about, models)
        inner = option.pop("options", None)
        option |= {"required": True} if name in schema.get("required", ()) else {}
        option["description"] = about["description"]
        option |= {"choices": option.pop("choices")} if "choices" in option else {}
        if about.get("default") is not None and not (option["type"] == "dict" and inner):
            option["default"] = about["default"]
        found[name] = option | ({"options": inner} if inner else {})
    return dict(sorted(found.items(), key=lambda one: not one[1].get("required")))


def _type(about: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """Returns type, elements, choices and options of a value, as far as it has them; None is no value."""
    if reference := about.get("$ref"):
        return _type(models[reference.rpartition("/")[2]], models)
    if variants := [one for one in about.get("anyOf", ()) if one != {"type": "null"}]:
        return _type(variants[0], models) if len(variants) == 1 else {"type": "raw"}
    if "enum" in about:
        return {"type": "str", "choices": about["enum"]}
    if about.get("type") == "object":
        return {"type": "dict", "options": _options(about, models)} if "properties" in about else {"type": "dict"}
    kind = _TYPES.get(about.get("type", ""), "raw")
    if kind != "list":
        return {"type": kind}
    items = _type(about["items"], models)
    choices = {"choices": items["choices"]} if "choices" in items else {}
    inner = {"options": items["options"]} if "options" in items else {}
    return {"type": "list", "elements": items["type"], **choices, **inner}


def _yaml(options: dict[str, dict[str, Any]], indent: int) -> Iterator[str]:
    pad, inner = " " * indent, " " * (indent + 2)
    for name, option in options.items():
        yield f"{pad}{name}:"
        for key, value in option.items():
            if key == "options":
                yield f"{inner}{key}:"
                yield from _yaml(value, indent + 4)
                continue
            style = None if isinstance(value, list | dict) else False
            line = inner + yaml.safe_dump({key: value}, default_flow_style=style, width=10_000).rstrip()
            if len(line) <= _WIDTH:
                yield line
                continue
            yield f"{inner}{key}: >-"
            room = _WIDTH - indent - 4
            for part in textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False):
                yield f"{inner}  {part}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def with_options(spec: str, variable: str, options: dict[str, dict[str, Any]]) -> str:
    """Puts the options of an input into the text of an argument spec, and leaves the rest as it is.

    Raises:
        SpecError: The input is not there, or there twice.
    """
    lines = spec.splitlines()
    if lines.count(f"      {variable}:") != 1:
        raise SpecError(f"{variable} must be in the specification once")
    start = lines.index(f"      {variable}:") + 1
    end = next((n for n in range(start, len(lines)) if _indent(lines[n]) <= len("      ")), len(lines))
    kept, inside = [], False
    for line in lines[start:end]:
        if _indent(line) <= len("        "):
            inside = line.strip() in (NOTE, "options:")
        kept += [] if inside else [line]
    block = [f"        {NOTE}", "        options:", *_yaml(options, len("          "))]
    return "\n".join([*lines[:start], *kept, *block, *lines[end:]]) + "\n"


def _judged(variable: str, option: dict[str, Any]) -> str | None:
    """Returns what is wrong with the hand-written part of an input's specification, or None."""
    nested = option.get("type") == "dict" or option.get("elements") in ("dict", "raw")
    if nested and variable not in INPUTS and variable not in WITHOUT:
        return "is nested and has no schema; name its schema in INPUTS of python/tools/argument_specs.py"
    if option.get("elements") == "dict":
        return "has elements: dict, so that Ansible would judge it before its schema; set elements: raw"
    return None


def table(variable: str, page: Path, root: Path) -> str:
    """Returns the table of an input's keys, for a page."""
    return "\n".join([*HEADER, *rows(options_of(INPUTS[variable]), page.parent, root)])


def _render_spec(old: str, specs: dict[str, Any]) -> str:
    new, wrong = old, []
    for entry in specs.values():
        for variable, option in (entry.get("options") or {}).items():
            if reason := _judged(variable, option):
                wrong.append(f"{variable} {reason}")
            elif variable in INPUTS:
                new = with_options(new, variable, options_of(INPUTS[variable]))
    if wrong:
        raise SpecError("; ".join(wrong))
    return new


def _render_page(old: str, page: Path, root: Path) -> str:
    unknown = sorted({name for name in re.findall(r"<!-- keys of (\w+):", old) if name not in INPUTS})
    if unknown:
        raise SpecError(f"has a table of {', '.join(unknown)}, which is no input with a schema")
    return _MARKER.sub(
        lambda found: (
            f"<!-- keys of {found[1]}:begin -->\n{table(found[1], page, root)}\n<!-- keys of {found[1]}:end -->"
        ),
        old,
    )


def missing_tables(root: Path) -> list[str]:
    """Returns each input whose description mentions a page that does not have its table."""
    found = []
    for path in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        for entry in read_specs(path).values():
            for variable, option in (entry.get("options") or {}).items():
                mention = MENTION.search(str(option.get("description", "")))
                if variable in INPUTS and mention:
                    page = root / mention[1]
                    tables = [one[1] for one in _MARKER.finditer(page.read_text("utf-8"))] if page.is_file() else []
                    if tables.count(variable) != 1:
                        found.append(f"{mention[1]}: must have the table of {variable} once")
    return found


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the options and the tables.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        0 when all is well, 1 when something is stale under `--check`, 2 when something cannot be written.
    """
    parser = argparse.ArgumentParser(description="Writes the options of nested inputs from their schemas.")
    parser.add_argument("--check", action="store_true", help="change nothing; name stale files and exit 1")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the repository")
    args = parser.parse_args(argv)
    stale = False
    broken = missing_tables(args.root)
    specs = sorted(args.root.glob("roles/*/meta/argument_specs.yml"))
    for path in [*specs, *sorted(args.root.glob("docs/**/*.md"))]:
        old = path.read_text(encoding="utf-8")
        try:
            new = _render_spec(old, read_specs(path)) if path in specs else _render_page(old, path, args.root)
        except (SpecError, ReadmeError) as error:
            broken.append(f"{path.relative_to(args.root)}: {error}")
            continue
        if new == old:
            continue
        if args.check:
            stale = True
            print(f"{path.relative_to(args.root)}: is stale; run python/tools/argument_specs.py")
        else:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(args.root)}: written")
    for finding in broken:
        print(finding, file=sys.stderr)
    if broken:
        return 2
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
