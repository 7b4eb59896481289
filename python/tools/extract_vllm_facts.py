"""Read what vLLM releases declare out of their wheels, without installing them, into the data that rackserve ships.

    pip download --no-deps --only-binary :all: --dest wheels vllm==0.33.0 transformers==5.20.2
    python python/tools/extract_vllm_facts.py wheels/vllm-0.33.0-*.whl wheels/transformers-5.20.2-*.whl

The second wheel is the transformers that the release's lock pins: vLLM serves many of its models through it. A release
that the data has already is replaced, the others stay; `--check` writes nothing and fails where the data differs.

Everything is read from syntax trees. Flags: see extract_vllm_flags.py. Architectures: the tables of
`model_executor/models/registry.py`. Model types: the tables of configuration classes, vLLM's and transformers'.
Quantization: the methods of `model_executor/layers/quantization/__init__.py`, each with what `get_min_capability` of
its class returns, and the same of the schemes of compressed-tensors.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from extract_vllm_flags import DECLARES, flags_of
from rackserve.servable._facts import KINDS, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DATA: Final = Path(__file__).parents[1] / "src/rackserve/data/vllm_facts.json"
_REGISTRY: Final = "vllm/model_executor/models/registry.py"
_QUANTIZATION: Final = "vllm/model_executor/layers/quantization/"
_WHEEL: Final = re.compile(r"(?P<name>vllm|transformers)(_cpu)?-(?P<version>[^-]+)-.*\.whl")
_MODELING: Final = re.compile(r"transformers/models/\w+/modeling_\w+\.py")
_MODEL_CLASS: Final = re.compile(r"^class (\w+(?:For[A-Z]\w+|Model))\(", re.MULTILINE)
_NO_MODEL: Final = re.compile(r"(Flax|TF|Auto)[A-Z]|.*(PreTrainedModel|Output|Module)$")
_CONFIGURATIONS: Final = re.compile(
    r"(vllm/transformers_utils/config|transformers/models/auto/(configuration_auto|auto_mappings))\.py"
)
_CONFIG_TABLES: Final = {
    "CONFIG_MAPPING_NAMES",
    "_CONFIG_REGISTRY",
    "_CONFIG_REGISTRY_OVERRIDE_HF",
    "_SPECULATIVE_DECODING_CONFIGS",
}
_HUNDREDS: Final = re.compile(r"(\d+)(\d)")

Facts = dict[str, Any]  # by kind: names of a release, each with its value; True where it has none


def facts_of(sources: Mapping[str, str], transformers: Mapping[str, str]) -> Facts:
    """Return what a release declares, by kind.

    Args:
        sources: path in vLLM's wheel to source text.
        transformers: the same of the transformers that it runs with.
    """
    registry = ast.parse(sources[_REGISTRY])
    tables = _tables(registry)
    native = {name for kind, table in tables.items() if kind.endswith("_MODELS") for name in table}
    gone = tables.get("_PREVIOUSLY_SUPPORTED_MODELS", {})
    plugins = tables.get("_OOT_SUPPORTED_MODELS", {})
    backend = tables.get("_TRANSFORMERS_BACKEND_MODELS", {})
    classes = _classes(text for path, text in sources.items() if path.startswith((_QUANTIZATION, "vllm/models/")))
    methods = ast.parse(sources[f"{_QUANTIZATION}__init__.py"])
    known = {name for text in transformers.values() for name in _MODEL_CLASS.findall(text) if not _NO_MODEL.match(name)}
    return {
        "flags": {flag[2:]: True for flag in flags_of({p: t for p, t in sources.items() if DECLARES.fullmatch(p)})},
        "architectures": dict.fromkeys(native - gone.keys() - plugins.keys(), True),
        # Without a backend for them, a release cannot serve models of transformers that it does not name itself.
        "transformers": dict.fromkeys((known if backend else set()) - native, True),
        "gone": gone,
        "plugins": plugins,
        "model_types": dict.fromkeys(_model_types([*sources.items(), *transformers.items()]), True),
        "quantization": {name: _floor(cls, classes) for name, cls in _methods(methods).items()},
        "deprecated": dict.fromkeys(_list(methods, "DEPRECATED_QUANTIZATION_METHODS"), True),
        "schemes": {
            name: floor
            for name in classes
            if name.startswith("CompressedTensors") and (floor := _floor(name, classes)) is not None
        },
    }


def _tables(tree: ast.Module) -> dict[str, dict[str, Any]]:
    """Return the literal dictionaries of a module by their names; the value of an entry that is no literal is True."""
    found: dict[str, dict[str, Any]] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            found[target.id] = {
                str(key.value): item.value if isinstance(item, ast.Constant) else True
                for key, item in zip(value.keys, value.values, strict=True)
                if isinstance(key, ast.Constant)
            }
    return found


def _model_types(sources: Iterable[tuple[str, str]]) -> set[str]:
    """Return the model types of the tables of configuration classes: keys of dictionaries, keywords, or pairs."""
    found: set[str] = set()
    for path, text in sources:
        if not _CONFIGURATIONS.fullmatch(path):
            continue
        for node in ast.parse(text).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if getattr(target, "id", "") not in _CONFIG_TABLES:
                continue
            for item in ast.walk(node):
                names: list[Any] = []
                if isinstance(item, ast.Dict):
                    names = [*item.keys]
                elif isinstance(item, ast.Call):
                    found |= {keyword.arg for keyword in item.keywords if keyword.arg}
                elif isinstance(item, ast.Tuple) and len(item.elts) == len(("type", "class")):
                    names = [item.elts[0]]
                found |= {str(name.value) for name in names if isinstance(name, ast.Constant)}
    return found


def _classes(texts: Iterator[str]) -> dict[str, ast.ClassDef]:
    nodes = (node for text in texts for node in ast.walk(ast.parse(text)))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def _methods(tree: ast.Module) -> dict[str, str]:
    """Return the class of each quantization method; empty where it is chosen when vLLM runs."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        name, value = getattr(target, "id", ""), getattr(node, "value", None)
        if name == "QuantizationMethods":
            words = [item.value for item in ast.walk(node) if isinstance(item, ast.Constant)]
            found = {**dict.fromkeys(map(str, words), ""), **found}
        elif name in ("QUANTIZATION_METHODS", "method_to_config") and isinstance(value, ast.Dict):
            found |= {
                str(key.value): getattr(item, "id", "")
                for key, item in zip(value.keys, value.values, strict=True)
                if isinstance(key, ast.Constant)
            }
    return found


def _list(tree: ast.Module, name: str) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return [str(item.value) for item in ast.walk(node.value) if isinstance(item, ast.Constant)]
    return []


def _floor(name: str, classes: Mapping[str, ast.ClassDef]) -> str | None:
    """Return the lowest compute capability that a class or its nearest base allows; None where it is not a number."""
    if name not in classes:
        return None
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_min_capability":
            returned = [item.value for item in ast.walk(node) if isinstance(item, ast.Return)]
            number = returned[0] if len(returned) == 1 else None
            digits = str(number.value) if isinstance(number, ast.Constant) else ""
            found = _HUNDREDS.fullmatch(digits)
            return f"{found[1]}.{found[2]}" if found else None
    floors = [_floor(getattr(base, "id", ""), classes) for base in classes[name].bases]
    return next((floor for floor in floors if floor), None)


def pack(facts: Mapping[str, Facts]) -> str:
    """Return the text of the data: names under the releases that have them, those releases oldest first.

    Args:
        facts: by release, oldest first.
    """
    order = list(facts)
    lines = [f' "releases": {json.dumps(order)}']
    for kind in KINDS:
        holders: dict[tuple[str, Any], list[str]] = defaultdict(list)
        for release in order:
            for name, value in facts[release][kind].items():
                holders[name, value].append(release)
        groups: dict[str, dict[str, Any]] = defaultdict(dict)
        for (name, value), releases in sorted(holders.items(), key=lambda item: item[0][0]):
            groups[_span(releases, order)][name] = value
        spans = sorted(groups, key=lambda span: [order.index(word) for word in re.split(r"\.\.|, ", span)])
        rows = [f"  {json.dumps(span)}: {_names(groups[span])}" for span in spans]
        lines.append(f" {json.dumps(kind)}: {{\n" + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _names(group: Mapping[str, Any]) -> str:
    valued = any(value is not True for value in group.values())
    return json.dumps(group if valued else list(group))


def _span(releases: Sequence[str], order: Sequence[str]) -> str:
    """Write releases as `first..last`, several such runs with commas."""
    runs: list[list[int]] = []
    for index in sorted(order.index(release) for release in releases):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(order[run[0]] if len(run) == 1 else f"{order[run[0]]}..{order[run[-1]]}" for run in runs)


def read_wheel(wheel: Path) -> dict[str, str]:
    """Return the source texts of a wheel that facts are read from."""
    kinds = (DECLARES, _MODELING, _CONFIGURATIONS)
    prefixes = (_REGISTRY, _QUANTIZATION, "vllm/models/")
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name).decode()
            for name in archive.namelist()
            if name.endswith(".py") and (name.startswith(prefixes) or any(kind.fullmatch(name) for kind in kinds))
        }


def _age(release: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", release)]


def main(arguments: Sequence[str]) -> int:
    """Write a release's facts into the data, or compare them."""
    parser = argparse.ArgumentParser(description="Read what a vLLM release declares out of its wheel.")
    parser.add_argument("vllm", type=Path, help="wheel of the release")
    parser.add_argument("transformers", type=Path, help="wheel of the transformers that its lock pins")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the data differs")
    parser.add_argument("--data", type=Path, default=DATA, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    named = _WHEEL.fullmatch(options.vllm.name)
    if not named or named["name"] != "vllm":
        parser.error(f"{options.vllm.name} is not a wheel of vLLM")
    old = options.data.read_text(encoding="utf-8") if options.data.exists() else ""
    facts = unpack(old) if old else {}
    facts[named["version"]] = facts_of(read_wheel(options.vllm), read_wheel(options.transformers))
    new = pack({release: facts[release] for release in sorted(facts, key=_age)})
    if options.check and new != old:
        print(f"{options.data.name} is not what {options.vllm.name} declares; run this without --check")
        return 1
    options.data.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
