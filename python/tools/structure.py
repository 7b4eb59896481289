"""Counts the structure of the package, so that two commits can be compared.

    git worktree add /tmp/before COMMIT
    python python/tools/structure.py --tree /tmp/before --json >before.json
    python python/tools/structure.py --compare before.json          # a Markdown table: before, after

A component is a module at the top of the package, a package below it, or one of the folders in `ansible/`: Ansible
loads each of these by itself, and modules run on other machines than filters.
Imports inside functions and for type checkers count as all others do.
A cycle is a group of components, or of modules, that all import each other, directly or through others.
The longest chain of imports takes the components of a cycle as one.
The arguments of a function are those that a caller gives: `self` and `cls` are not counted.
All of it is read from the text of the files; only the filters are loaded, by another process.

`--times` runs `make check` once and `rackserve --help` five times, with the tree's own `.venv`. The seconds of the last
whole `.ci/test` are shown where the tree has them. What was measured in other ways, such as manifest reads
(count_reads.py), comes in by `--measured FILE`: a JSON object of name and number.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Graph = dict[str, set[str]]

PACKAGE: Final = "rackserve"
# The name that Ansible gives to the files of our folders that ansible.cfg has as `module_utils`.
_UTILS: Final = "ansible.module_utils."
_UTILS_FOLDERS: Final = ("ansible.module_utils", "programs")
_COUNT_FILTERS: Final = "import runpy, sys; print(len(runpy.run_path(sys.argv[1])['FilterModule']().filters()))"
_HELP_RUNS: Final = 5


class CannotCountError(Exception):
    """The tree lacks what is counted, or a command in it failed."""


def modules_of(package: Path) -> dict[str, Path]:
    """Return every module by its dotted name; a package has the name of its folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    if not found:
        raise CannotCountError(f"{package} has no Python module; set --tree to a checkout of the project")
    return found


def imports_of(tree: ast.Module, package: str, known: Mapping[str, Path]) -> set[str]:
    """Return the known modules that a module of that package imports, anywhere in its text."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name(f"{'.' * node.level}{node.module or ''}", package)
            names += [f"{source}.{alias.name}" for alias in node.names]
    return {found for name in names if (found := _nearest(name, known))}


def _nearest(name: str, known: Mapping[str, Path]) -> str:
    """Return the module that a dotted name is, or is an attribute of."""
    if name.startswith(_UTILS):
        module = name.removeprefix(_UTILS).partition(".")[0]
        name = next((found for f in _UTILS_FOLDERS if (found := f"{PACKAGE}.{f}.{module}") in known), "")
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def component_of(path: Path, package: Path) -> str:
    """Return the component that a module belongs to, as a path in the package."""
    folder, *below = path.relative_to(package).parts[:-1] or [path.stem]
    return f"{folder}/{below[0]}" if folder == "ansible" and below else folder


def groups_of(graph: Graph) -> dict[str, frozenset[str]]:
    """Return each node's strongly connected group; alone when it is in no cycle."""
    reached = {node: _reached(graph, node) for node in graph}
    return {node: frozenset({node} | {other for other in reached[node] if node in reached[other]}) for node in graph}


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        node = ahead.pop()
        if node not in seen:
            seen.add(node)
            ahead += graph[node]
    return seen


def cycles_of(graph: Graph) -> list[list[str]]:
    """Return the groups that have more than one member."""
    return sorted(sorted(group) for group in set(groups_of(graph).values()) if len(group) > 1)


def longest_chain(graph: Graph) -> int:
    """Return how many nodes the longest chain has, a cycle taken as one."""
    group = groups_of(graph)
    below = {mine: {group[other] for node in mine for other in graph[node]} - {mine} for mine in group.values()}
    height: dict[frozenset[str], int] = {}
    for mine in TopologicalSorter(below).static_order():
        height[mine] = 1 + max((height[other] for other in below[mine]), default=0)
    return max(height.values(), default=0)


def arguments_in(tree: ast.Module) -> Iterator[int]:
    """Yield how many arguments each function takes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            takes = node.args
            names = [
                a.arg for a in [*takes.posonlyargs, *takes.args, *takes.kwonlyargs, takes.vararg, takes.kwarg] if a
            ]
            yield len(names) - (names[:1] in (["self"], ["cls"]))


def filters_in(tree: Path) -> int:
    """Return how many filters Ansible gets, by asking each plugin file as Ansible does."""
    source = tree / "python" / "src"
    counts = (
        _run([sys.executable, "-c", _COUNT_FILTERS, str(path)], tree, {"PYTHONPATH": str(source)})
        for path in sorted((source / PACKAGE / "ansible" / "filters").glob("[!_]*.py"))
    )
    return sum(map(int, counts))


def count(tree: Path) -> dict[str, Any]:
    """Return `figures` (name and number), the cycles, and the lines of each component."""
    package = tree / "python" / "src" / PACKAGE
    modules = modules_of(package)
    components = {name: component_of(path, package) for name, path in modules.items() if name != PACKAGE}
    texts = {name: path.read_text(encoding="utf-8") for name, path in modules.items()}
    parsed = {name: ast.parse(text) for name, text in texts.items()}
    imports = {
        name: imports_of(parsed[name], name if path.stem == "__init__" else name.rpartition(".")[0], modules) - {name}
        for name, path in modules.items()
    }
    edges: Graph = {component: set() for component in components.values()}
    lines = dict.fromkeys(sorted(edges), 0)
    for name, component in components.items():
        edges[component] |= {components[other] for other in imports[name] if other in components} - {component}
        lines[component] += len(texts[name].splitlines())
    arguments = [number for module in parsed.values() for number in arguments_in(module)]
    cycles = {"components": cycles_of(edges), "modules": cycles_of(imports)}
    top = [path for path in package.glob("*.py") if path.stem not in ("__init__", "__main__")]
    figures = {
        "modules": len(modules),
        "modules at the top": len(top),
        "components": len(edges),
        "imports between components": sum(map(len, edges.values())),
        "longest chain of imports": longest_chain(edges),
        "cycles of components": len(cycles["components"]),
        "cycles of modules": len(cycles["modules"]),
        "Jinja filters": filters_in(tree),
        "functions": len(arguments),
        "arguments of a function, mean": round(statistics.fmean(arguments), 2) if arguments else 0,
        "lines": sum(lines.values()),
        "lines of a component, median": statistics.median(lines.values()),
        "lines of the largest component": max(lines.values()),
    }
    return {"figures": figures, "cycles": cycles, "lines": lines}


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CannotCountError(f"{' '.join(command)} ended with {done.returncode} in {folder}:\n{end}")
    return done.stdout


def times(tree: Path) -> dict[str, float]:
    """Return seconds, and those of CPU, of `rackserve --help`, the median of several, and of `make check`, once."""
    program = tree / ".venv" / "bin" / PACKAGE
    if not program.exists():
        raise CannotCountError(f"{program} is missing; run `make setup` in {tree} to measure times there")
    starts = [_seconds([str(program), "--help"], tree) for _ in range(_HELP_RUNS)]
    help_s, help_cpu = (statistics.median(column) for column in zip(*starts, strict=True))
    check_s, check_cpu = _seconds(["make", "check"], tree)
    return {
        "rackserve --help, s": round(help_s, 2),
        "rackserve --help, s of CPU": round(help_cpu, 2),
        "make check, s": round(check_s),
        "make check, s of CPU": round(check_cpu),
    }


def _seconds(command: Sequence[str], tree: Path) -> tuple[float, float]:
    """Return a command's seconds by the clock, and of CPU, which depend less on what else the machine does."""
    started, before = time.monotonic(), getrusage(RUSAGE_CHILDREN)
    _run(command, tree, {})
    after = getrusage(RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.monotonic() - started, used


def seconds_of_test(tree: Path) -> dict[str, float]:
    """Return how long the last `.ci/test` took; nothing when none ended here."""
    took = tree / ".test-results" / "seconds"
    return {".ci/test, s": int(took.read_text(encoding="utf-8"))} if took.is_file() else {}


def text_of(counted: Mapping[str, Any]) -> str:
    """Return the counts as plain text."""
    tables = [counted["figures"], counted["lines"]]
    width = max(len(name) for table in tables for name in table)
    heads = ("", "\nlines of each component\n")
    text = "".join(
        head + "".join(f"{name:{width}} {table[name]:>8}\n" for name in table)
        for head, table in zip(heads, tables, strict=True)
    )
    cycles = (
        f"cycle of {kind}: {', '.join(cycle)}\n" for kind in counted["cycles"] for cycle in counted["cycles"][kind]
    )
    return text + "\n" * any(counted["cycles"].values()) + "".join(cycles)


def comparison(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return two counts as a Markdown table; what one of them lacks is a dash."""
    names = dict.fromkeys([*before["figures"], *after["figures"]])
    rows = [f"| {name} | {before['figures'].get(name, '-')} | {after['figures'].get(name, '-')} |\n" for name in names]
    return "".join(["| what | before | after |\n|---|---:|---:|\n", *rows])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=Path(), help="a checkout of the project (default: this folder)")
    parser.add_argument("--times", action="store_true", help="measure `make check` and `rackserve --help` too")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="other figures: a JSON object of name and number")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--compare", type=Path, metavar="BEFORE", help="print a Markdown table beside this earlier JSON")
    args = parser.parse_args(argv)
    tree = args.tree.absolute()
    try:
        counted = count(tree)
        counted["figures"] |= {**(times(tree) if args.times else {}), **seconds_of_test(tree)}
        counted["figures"] |= json.loads(args.measured.read_text(encoding="utf-8")) if args.measured else {}
        before = json.loads(args.compare.read_text(encoding="utf-8")) if args.compare else None
    except (CannotCountError, OSError, ValueError) as wrong:
        print(wrong, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(counted, indent=2))
    else:
        print(comparison(before, counted) if before else text_of(counted), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
