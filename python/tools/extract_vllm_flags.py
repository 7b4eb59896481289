"""Read the flags of `vllm serve`, or the names of metrics, out of a wheel, without installing it.

    pip download --no-deps --only-binary :all: --dest wheels vllm==0.33.0
    python python/tools/extract_vllm_flags.py --metrics wheels/vllm-0.33.0-*.whl > 0.33.0.txt

The snapshots of metrics lie in python/tests/data/vllm_metrics; extract_vllm_facts.py puts the flags into the data that
rackserve ships.

vLLM declares its flags in three ways, and all are read from the syntax tree: literal names in `add_argument`, one flag
a field of the front end's class, and `--no-<flag>` (from 0.33 also `--disable-<x>` of `--enable-<x>`) where the field
that gives the type is a bool. The result was equal to what `vllm serve --help=all` of 0.10.2, 0.22.1, 0.31.0, 0.32.0
and 0.33.0 lists, plus the spellings that 0.33.0 accepts without listing them.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

DECLARES: Final = re.compile(
    r"vllm/(engine/arg_utils|entrypoints/(openai|common|launchers)/cli_args|config(/.*)?|utils/argparse_utils)\.py"
)
_MEASURES: Final = re.compile(r"vllm/(engine/metrics|v1/metrics/.*|v1/spec_decode/metrics)\.py")
_METRIC: Final = re.compile(r"[\"'](vllm:[a-z0-9_]+)[\"']")
_UNIONS: Final = {"Optional", "Union", "SkipValidation", "Annotated", "InitVar"}


def flags_of(sources: dict[str, str]) -> list[str]:
    """Return the long flags that a release's sources declare, sorted.

    Args:
        sources: path in the wheel to source text.
    """
    trees = {path: ast.parse(text) for path, text in sources.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    groups = _groups(nodes)
    found: set[str] = set()
    for path, tree in trees.items():
        if path.endswith(("/arg_utils.py", "/cli_args.py")):
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                    found |= _flags_of_call(node, groups, classes)
    if "BaseFrontendArgs" in classes or "FrontendArgs" in classes:
        found |= _flags_of_class("FrontendArgs", classes) | _aliases(nodes)
    if "EnableDisableAction" in classes:
        found |= _opposites(found)
    return sorted(found)


def _groups(nodes: list[ast.AST]) -> dict[str, str]:
    """Return the class that each `x_kwargs = get_kwargs(Class)` stands for."""
    return {
        node.targets[0].id: node.value.args[0].id
        for node in nodes
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "get_kwargs"
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value.args[0], ast.Name)
    }


def _flags_of_call(call: ast.Call, groups: dict[str, str], classes: dict[str, ast.ClassDef]) -> set[str]:
    words = {str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)}
    names = {word for word in words if word.startswith("--")}
    if any(_is_switch(keyword, groups, classes) for keyword in call.keywords):
        names |= {f"--no-{name[2:]}" for name in names}
    return names


def _is_switch(keyword: ast.keyword, groups: dict[str, str], classes: dict[str, ast.ClassDef]) -> bool:
    if keyword.arg == "action":
        return "BooleanOptionalAction" in ast.unparse(keyword.value)
    if keyword.arg is not None:
        return False
    for node in ast.walk(keyword.value):  # **x_kwargs["field"], or **{**x_kwargs["field"], "default": None}
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            group = groups.get(getattr(node.value, "id", ""), "")
            annotation = _fields(group, classes).get(str(node.slice.value))
            return annotation is not None and _takes_bool(annotation)
    return False


def _fields(name: str, classes: dict[str, ast.ClassDef]) -> dict[str, ast.expr]:
    """Return the annotated fields of a class and its bases."""
    if name not in classes:
        return {}
    inherited: dict[str, ast.expr] = {}
    for base in classes[name].bases:
        inherited |= _fields(getattr(base, "id", ""), classes)
    own = [node for node in classes[name].body if isinstance(node, ast.AnnAssign)]
    return inherited | {node.target.id: node.annotation for node in own if isinstance(node.target, ast.Name)}


def _members(annotation: ast.expr) -> set[str]:
    """Return the names that a union is made of; a name alone is a union of one."""
    if isinstance(annotation, ast.BinOp):
        return _members(annotation.left) | _members(annotation.right)
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") in _UNIONS:
        inner = annotation.slice
        return set().union(*map(_members, inner.elts if isinstance(inner, ast.Tuple) else [inner]))
    return {ast.unparse(annotation)}


def _takes_bool(annotation: ast.expr) -> bool:
    members = _members(annotation)
    return "bool" in members and members != {"bool", "str", "None"}  # the latter is a flag with an optional value


def _flags_of_class(name: str, classes: dict[str, ast.ClassDef]) -> set[str]:
    fields = _fields(name, classes)
    flags = {f"--{field.replace('_', '-')}" for field in fields}
    return flags | {f"--no-{field.replace('_', '-')}" for field, kind in fields.items() if _takes_bool(kind)}


def _aliases(nodes: list[ast.AST]) -> set[str]:
    """Return the names in `kwargs[field]["flags"] = ["--x"]`."""
    lists = [
        node.value.elts
        for node in nodes
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.List)
        and ast.unparse(node.targets[0]).endswith("['flags']")
    ]
    return {str(item.value) for items in lists for item in items if isinstance(item, ast.Constant)}


def _opposites(found: set[str]) -> set[str]:
    """Return `--disable-x` of every switch `--enable-x`, and the other way round."""
    pairs = {"--enable-": "--disable-", "--disable-": "--enable-"}
    return {
        opposite + flag.removeprefix(prefix)
        for flag in found
        for prefix, opposite in pairs.items()
        if flag.startswith(prefix) and f"--no-{flag[2:]}" in found
    }


def metrics_of(sources: dict[str, str]) -> list[str]:
    """Return the names of metrics that a release's sources spell out; a counter is exposed with `_total` behind it."""
    return sorted({name for text in sources.values() for name in _METRIC.findall(text)})


def main(arguments: Sequence[str]) -> int:
    """Print the flags or the metrics of a wheel, under a line that says where they are from."""
    parser = argparse.ArgumentParser(description="Read the flags of `vllm serve` out of a wheel.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--metrics", action="store_true", help="names of metrics instead of flags")
    options = parser.parse_args(arguments)
    wanted, extract = (_MEASURES, metrics_of) if options.metrics else (DECLARES, flags_of)
    with zipfile.ZipFile(options.wheel) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist() if wanted.fullmatch(name)}
    print(f"# Made by python/tools/extract_vllm_flags.py from {options.wheel.name}")
    print("\n".join(extract(sources)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
