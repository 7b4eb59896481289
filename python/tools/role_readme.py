"""Writes the variable table of every role's README from its meta/argument_specs.yml.

The table is between two markers, with the shared values that the role reads; the rest of the file is written by hand
and is left alone. A nested input has rows for its keys, unless its description mentions a page of docs, which has them.

    python python/tools/role_readme.py           # writes the tables
    python python/tools/role_readme.py --check   # changes nothing; exit 1 names the stale files
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import yaml

BEGIN = "<!-- argument_specs:begin -->"
END = "<!-- argument_specs:end -->"
MENTION: Final = re.compile(r"\b(docs/[\w/-]+?([\w-]+)\.md)(#[\w-]+)?")
HEADER = ("| variable | type | default | what |", "|---|---|---|---|")


class ReadmeError(Exception):
    """A README without its two markers, or a specification that cannot be read."""


def _cell(text: str) -> str:
    """Makes a text fit into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{_cell(text)}`" if text else '`""`'


def _type(option: dict[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    elements = option.get("elements")
    if elements == "raw" and "options" in option:  # leaves the items to our schema; see argument_specs.py
        elements = "dict"
    return f"{kind} of {elements}" if elements else kind


def _default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    return _code(option["default"]) if "default" in option else "none"


def _description(option: dict[str, Any]) -> str:
    description = option.get("description", "")
    return " ".join(description) if isinstance(description, list) else str(description)


def _what(option: dict[str, Any], folder: Path, root: Path) -> str:
    text = MENTION.sub(
        lambda found: f"[{found[2]}]({os.path.relpath(root / found[1], folder)}{found[3] or ''})", _description(option)
    )
    choices = option.get("choices")
    if choices:
        text = f"{text} One of {', '.join(_code(choice) for choice in choices)}."
    return _cell(text)


def rows(
    options: dict[str, dict[str, Any]], folder: Path, root: Path, *, parent: str = "", linked: bool = False
) -> list[str]:
    """Makes the rows of options, each followed by those of its own options.

    Args:
        options: By name.
        folder: Where the file is that gets the rows.
        root: The repository.
        parent: What is before each name.
        linked: Whether an option that mentions a page of docs has its own options there.

    Returns:
        Lines of a Markdown table.
    """
    found: list[str] = []
    for name, option in options.items():
        path = f"{parent}{name}"
        found.append(f"| `{path}` | {_type(option)} | {_default(option)} | {_what(option, folder, root)} |")
        if not (linked and MENTION.search(_description(option))):
            found.extend(rows(option.get("options", {}), folder, root, parent=f"{path}."))
    return found


def table(specs: dict[str, Any], folder: Path, root: Path) -> str:
    """Makes the table of a role.

    Args:
        specs: What stands under `argument_specs` in the role's file.
        folder: The role.
        root: The repository.

    Returns:
        A Markdown table for each entry point that is not the same as `main`, without a line break at its end.
    """
    parts: list[str] = []
    distinct = {entry: spec for entry, spec in specs.items() if entry == "main" or spec != specs.get("main")}
    for entry, spec in distinct.items():
        found = rows(spec.get("options") or {}, folder, root, linked=True)
        body = "\n".join([*HEADER, *found]) if found else "No variables."
        parts.append(body if len(distinct) == 1 else f"Entry point `{entry}`:\n\n{body}")
    return "\n\n".join(parts)


def shared(role: Path) -> str:
    """Names the values of the role `stack` that a role reads, as a paragraph below its table.

    Args:
        role: Its folder.

    Returns:
        Markdown; nothing for a role that reads none, and for `stack` itself.
    """
    parts = ("defaults", "tasks", "vars", "templates", "handlers")
    files = [path for part in parts for path in (role / part).rglob("*") if path.is_file()]
    names = {name for path in files for name in re.findall(r"\bstack_\w+", path.read_text(encoding="utf-8"))}
    if role.name == "stack" or not names:
        return ""
    listed = f"Shared values, see [stack](../stack/README.md): {', '.join(f'`{name}`' for name in sorted(names))}."
    return "\n\n" + textwrap.fill(listed, 160, break_long_words=False, break_on_hyphens=False)


def render(readme: str, specs: dict[str, Any], folder: Path, root: Path) -> str:
    """Puts the table of a role into the text of its README.

    Args:
        readme: The README as it is.
        specs: What stands under `argument_specs` in the role's file.
        folder: The role.
        root: The repository.

    Returns:
        The README with the table between its markers.

    Raises:
        ReadmeError: A marker is absent, doubled, or the end comes first.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ReadmeError(f"needs the line '{BEGIN}' once, and after it the line '{END}' once")
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(specs, folder, root)}{shared(folder)}\n{END}{after}"


def read_specs(path: Path) -> dict[str, Any]:
    """Reads what stands under `argument_specs` in a role's file.

    Raises:
        ReadmeError: It cannot be read.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ReadmeError(f"cannot read {path}: {error}") from error
    specs = loaded.get("argument_specs") if isinstance(loaded, dict) else None
    if not isinstance(specs, dict):
        raise ReadmeError(f"{path} has no mapping 'argument_specs'")
    return specs


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the tables of every role.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        0 when all is well, 1 when a table is stale under `--check`, 2 when one cannot be made.
    """
    parser = argparse.ArgumentParser(description="Writes the variable tables of the roles' READMEs.")
    parser.add_argument("--check", action="store_true", help="change nothing; name stale files and exit 1")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the repository")
    args = parser.parse_args(argv)
    stale = broken = False
    for readme in sorted(args.root.glob("roles/*/README.md")):
        try:
            old = readme.read_text(encoding="utf-8")
            new = render(old, read_specs(readme.parent / "meta" / "argument_specs.yml"), readme.parent, args.root)
        except ReadmeError as error:
            broken = True
            print(f"{readme.relative_to(args.root)}: {error}", file=sys.stderr)
            continue
        if new == old:
            continue
        if args.check:
            stale = True
            print(f"{readme.relative_to(args.root)}: table is stale; run python/tools/role_readme.py")
        else:
            readme.write_text(new, encoding="utf-8")
            print(f"{readme.relative_to(args.root)}: written")
    if broken:
        return 2
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
