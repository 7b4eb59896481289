"""Checks the form of every role: what ansible-lint does not look at.

Rules:
    specs      meta/argument_specs.yml is there, and its options are the keys of defaults/main.yml. A line `# <role>_x:`
               in the defaults, from the first column on, declares a required input without a default.
    required   an option is required exactly when the defaults give it no value, unless it is only described.
    main       tasks/main.yml has 40 lines at most and holds import_tasks only.
    tasks      every other task file has 120 lines at most.
    readme     README.md is there and has the two markers of the generated table.
    example    the YAML examples of README.md set no variable of the role that its specification does not have.
    names      the name of every play, task, block and handler is a verb of VERBS and its object, without a pronoun in
               place of the object: Ansible's output shows the name alone. Holds for playbooks and molecule's plays too.
    once       no assert names one computed variable (of `vars:` or the role's vars/) in `that` and in `fail_msg`:
               Ansible computes it anew for each place that names it, for `fail_msg` even when nothing fails.
    scenario   a scenario in molecule/ has the role's name, or another one has it among the roles of its converge.yml.
    shared     the role depends on the role `stack`, and every `stack_` name in it is one of that role's.

    python python/tools/check_roles.py   # exit 1 names every finding
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAIN_LINES = 40
TASK_LINES = 120
MARKERS = ("<!-- argument_specs:begin -->", "<!-- argument_specs:end -->")
IMPORTS = {"ansible.builtin.import_tasks"}
BESIDE_IMPORT = {"name", "tags"}
_VERBS = """
    Allow Apply Blacklist Build Check Collect Compare Configure Converge Copy Create Destroy Disable Enable End
    Enrol Exclude Export Fail Find Flush Forbid Generate Import Install Issue Link List Load Lock Mask Measure Monitor
    Order Place Plan Prepare Read Reboot Record Refresh Refuse Reject Reload Remove Replace Report Request Require Reset
    Restart Restore Run Serve Set Skip Start Stop Switch Transfer Update Validate Verify Wait Write
"""
VERBS = frozenset(_VERBS.split())
# Refused as the first and as the last word of the object.
_PRONOUNS = "it its them their this these those that one each all both"
PRONOUNS = frozenset(_PRONOUNS.split())
# Refused everywhere.
_VAGUE = "it them what whatever who whom something somebody anything anybody nothing nobody everything"
VAGUE = frozenset(_VAGUE.split())
NESTED = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
PLAYS = ("site.yml", "playbooks/*.yml", "molecule/*/*.yml")
SHARED = "stack"
# Every role brings the one; the tests of full_stack run the other, which fails on a host that is not yet converged.
NOT_CONVERGED = {SHARED, "verify"}


def _load(path: Path) -> Any:  # noqa: ANN401  YAML may hold anything
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _declared(role: str, defaults: Path) -> tuple[set[str], set[str]]:
    """Reads the variables that a role's defaults name.

    Returns:
        Those with a value, and those declared as required inputs.
    """
    if not defaults.is_file():
        return set(), set()
    pattern = re.compile(rf"^# ({re.escape(role)}_\w+):(?:\s|$)", re.MULTILINE)
    inputs = set(pattern.findall(defaults.read_text(encoding="utf-8")))
    return set(_load(defaults) or {}), inputs


def _options(role: Path) -> dict[str, dict[str, Any]]:
    """Reads the options of every entry point; none where the specification cannot be read as such."""
    path = role / "meta" / "argument_specs.yml"
    loaded = _load(path) if path.is_file() else None
    entries = loaded.get("argument_specs") if isinstance(loaded, dict) else None
    options: dict[str, dict[str, Any]] = {}
    for entry in entries.values() if isinstance(entries, dict) else []:
        options |= entry.get("options") or {}
    return options


def _check_specs(role: Path) -> list[str]:
    path = role / "meta" / "argument_specs.yml"
    if not path.is_file():
        return ["specs: meta/argument_specs.yml is missing"]
    loaded = _load(path)
    entries = loaded.get("argument_specs") if isinstance(loaded, dict) else None
    if not isinstance(entries, dict) or not entries:
        return ["specs: meta/argument_specs.yml has no mapping 'argument_specs'"]
    options = _options(role)
    valued, inputs = _declared(role.name, role / "defaults" / "main.yml")
    found = [f"specs: {name} is in the specification, not in the defaults" for name in options.keys() - valued - inputs]
    found += [
        f"specs: {name} is in the defaults, not in the specification" for name in (valued | inputs) - options.keys()
    ]
    for name, option in options.items():
        required = bool(option.get("required"))
        if required and name in valued:
            found.append(f"required: {name} is required and has a default; comment it out in the defaults")
        if not required and name in inputs - valued:
            found.append(f"required: {name} has no default; set 'required: true' in the specification")
    return sorted(found)


def _check_tasks(role: Path) -> list[str]:
    found: list[str] = []
    main = role / "tasks" / "main.yml"
    if not main.is_file():
        return ["main: tasks/main.yml is missing"]
    for path in sorted((role / "tasks").glob("**/*.yml")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        rule, limit = ("main", MAIN_LINES) if path == main else ("tasks", TASK_LINES)
        if lines > limit:
            found.append(f"{rule}: {path.relative_to(role)} has {lines} lines, more than {limit}")
    for task in _load(main) or []:
        others = set(task) - IMPORTS - BESIDE_IMPORT
        if others or not IMPORTS & set(task):
            what = ", ".join(sorted(others)) or "no import"
            found.append(f"main: task '{task.get('name', '')}' of tasks/main.yml is not import_tasks alone: {what}")
    return found


def _items(items: Any, outer: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:  # noqa: ANN401  YAML
    """Yields plays, tasks, blocks and handlers, those inside of others too, each with the variables that it sees."""
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            continue
        seen = {**outer, **(item.get("vars") or {})}
        yield item, seen
        for key in NESTED:
            yield from _items(item.get(key), seen)


def name_problem(name: str) -> str:
    """Checks one name of a play, task, block or handler.

    Returns:
        What is wrong with it, or an empty string.
    """
    words = name.rpartition(" | ")[2].split()
    verb, objects = words[0] if words else "", [word.strip(",;:.").lower() for word in words[1:]]
    if verb not in VERBS:
        return f"it starts with '{verb}', which is not a verb of VERBS in check_roles.py; start with one, or add it"
    if not objects:
        return "it has no object; name what the task changes or reads"
    vague = [word for word in objects if word in VAGUE]
    # "Verify that ..." states a fact, so "that" is not a pronoun there.
    if objects[0] in PRONOUNS and not (objects[0] == "that" and verb in {"Check", "Validate", "Verify"}):
        vague.insert(0, objects[0])
    if objects[-1] in PRONOUNS:
        vague.append(objects[-1])
    return f"'{vague[0]}' stands for its object; name the object" if vague else ""


def check_names(path: Path) -> list[str]:
    """Checks the names in one file of plays, tasks or handlers.

    Args:
        path: The YAML file.

    Returns:
        The findings, each starting with the name of the rule.
    """
    names = dict.fromkeys(str(item["name"]) for item, _ in _items(_load(path), {}) if "name" in item)
    problems = {name: name_problem(name) for name in names}
    return [f"names: '{name}' in {path.name}: {problem}" for name, problem in problems.items() if problem]


def _check_readme(role: Path) -> list[str]:
    readme = role / "README.md"
    if not readme.is_file():
        return ["readme: README.md is missing"]
    text = readme.read_text(encoding="utf-8")
    found = [f"readme: README.md has not once the line '{marker}'" for marker in MARKERS if text.count(marker) != 1]
    examples = "\n".join(re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    set_there = dict.fromkeys(re.findall(rf"^({re.escape(role.name)}_\w+):", examples, re.MULTILINE))
    siblings = tuple(f"{path.name}_" for path in role.parent.glob(f"{role.name}_*"))
    unknown = [name for name in set_there if name not in _options(role) and not name.startswith(siblings)]
    found += [f"example: README.md sets {name}, which is not in the specification" for name in unknown]
    return found


def _check_once(role: Path, path: Path) -> list[str]:
    of_role = {name: value for file in role.glob("vars/**/*.yml") for name, value in (_load(file) or {}).items()}
    found = []
    for task, variables in _items(_load(path), of_role):
        asserted = task.get("ansible.builtin.assert") or {}
        that, message = (set(re.findall(r"\w+", str(asserted.get(key, "")))) for key in ("that", "fail_msg"))
        found += [
            f"once: '{task.get('name', '')}' in {path.name} computes {name} for 'that' and again for 'fail_msg'; "
            "use reject_problems, or register it"
            for name in sorted(that & message)
            if "{{" in str(variables.get(name, ""))
        ]
    return found


def _converged(scenario: Path) -> set[str]:
    """Returns the roles that the plays of a scenario's converge.yml name; not those of playbooks that it imports."""
    path = scenario / "converge.yml"
    plays = _load(path) if path.is_file() else []
    roles = [role for play in plays for role in play.get("roles", [])]
    return {role["role"] if isinstance(role, dict) else role for role in roles}


def _check_scenario(role: Path) -> list[str]:
    scenarios = [path.parent for path in role.parents[1].glob("molecule/*/molecule.yml")]
    if role.name in NOT_CONVERGED or any(path.name == role.name or role.name in _converged(path) for path in scenarios):
        return []
    return [f"scenario: no scenario in molecule/ is named {role.name} or has it in its converge.yml; add one"]


def _check_shared(role: Path) -> list[str]:
    home = role.parent / SHARED
    if role == home:
        return []
    meta = role / "meta" / "main.yml"
    dependencies = _load(meta).get("dependencies") if meta.is_file() else None
    found = [] if {"role": SHARED} in (dependencies or []) else [f"shared: meta/main.yml does not depend on {SHARED}"]
    inputs, described = _declared(SHARED, home / "defaults" / "main.yml")
    constants = home / "vars" / "main.yml"
    known = inputs | described | set(_load(constants) if constants.is_file() else {})
    for path in sorted(path for path in role.rglob("*") if path.suffix in {".yml", ".j2"}):
        named = set(re.findall(rf"\b(?:__)?{SHARED}_\w+", path.read_text(encoding="utf-8")))
        found += [
            f"shared: {path.relative_to(role)} names {name}, unknown to {SHARED}" for name in sorted(named - known)
        ]
    return found


def check(role: Path) -> list[str]:
    """Checks one role.

    Args:
        role: Its folder.

    Returns:
        The findings, each starting with the name of its rule.
    """
    files = sorted(path for folder in ("tasks", "handlers") for path in role.glob(f"{folder}/**/*.yml"))
    each = [finding for path in files for finding in (*check_names(path), *_check_once(role, path))]
    return [
        *_check_specs(role),
        *_check_tasks(role),
        *_check_readme(role),
        *_check_scenario(role),
        *_check_shared(role),
        *each,
    ]


def main(argv: list[str] | None = None) -> int:
    """Checks every role of the repository, and the names in its plays.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        0 when every role is well formed, else 1.
    """
    parser = argparse.ArgumentParser(description="Checks the form of every role.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the repository")
    args = parser.parse_args(argv)
    roles = sorted(path for path in args.root.glob("roles/*") if path.is_dir())
    findings = [f"{role.relative_to(args.root)}: {finding}" for role in roles for finding in check(role)]
    plays = sorted(path for pattern in PLAYS for path in args.root.glob(pattern))
    findings += [f"{path.parent.relative_to(args.root)}: {finding}" for path in plays for finding in check_names(path)]
    for finding in findings:
        print(finding)
    if not roles:
        print(f"{args.root / 'roles'} has no role; set --root to the repository")
    elif not findings:
        print(f"{len(roles)} roles are well formed")
    return 1 if findings or not roles else 0


if __name__ == "__main__":
    raise SystemExit(main())
