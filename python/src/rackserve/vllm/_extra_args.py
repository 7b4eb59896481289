"""`extra_args`: what they mean together, what they may not say, and which of them a release does not have."""

from __future__ import annotations

import difflib
import json
import re
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from rackserve.vllm._arguments import (
    flag_of,
    long_name,
    owner_of,
    refusal_of,
    remote_connectors,
    switch_of,
    written_paths,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackserve.vllm._releases import Release

Extra = bool | int | float | str | list[str] | dict[str, Any]
_NAME: Final = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\.[^.+=\s]+)*\+?")
_OPTION: Final = re.compile(r"-(?!\d|\.\d)")  # argparse takes -1 for a number
# Folders that the unit hides from the engine (ProtectHome, TemporaryFileSystem in vllm@.service.j2).
_HIDDEN: Final = ("/home", "/root", "/run", "/var/lib/vllm", "/var/cache/vllm")
_TEMPORARY: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - PrivateTmp: the instance's own


def joined(extra_args: Mapping[str, Extra]) -> dict[str, Extra]:
    """Return the flags as they are written: `x.y: 1` as `x: {y: 1}`, and a switch that is off as its negation.

    vLLM's parser joins dotted names in the same way (vllm 0.32.0, utils/argparse_utils.py), but reads a dotted name
    whose value is true as one without a value.
    """
    found: dict[str, Extra] = {}
    for key, value in extra_args.items():
        flag, *path = key.removesuffix("+").split(".")
        if path:
            inside: Any = found.setdefault(flag, {})
            for part in path[:-1]:
                inside = inside.setdefault(part, {})
            inside[path[-1]] = _items(value) if key.endswith("+") else value
        elif value is False:
            found[negated(key)] = True
        else:
            found[key] = value
    return found


def negated(flag: str) -> str:
    """Return the name that switches a flag off, or on where it is switched off."""
    return flag.removeprefix("no-") if flag.startswith("no-") else f"no-{flag}"


def _items(value: Extra) -> list[Any]:
    if isinstance(value, list):
        return value
    return value.split(",") if isinstance(value, str) else [value]


def validate_extra_args(name: str, extra_args: Mapping[str, Extra]) -> list[str]:
    """Return a sentence for everything in `extra_args` that no release lets an instance have; empty when valid.

    Args:
        name: of the instance, whose folders the engine may write.
        extra_args: the key of the inventory.
    """
    misspelt = [sentence for key in extra_args for sentence in _spelling(key)]
    if misspelt:
        return misspelt
    found = [sentence for key, value in extra_args.items() for sentence in _contradictions(key, value)]
    return found or _repeated(extra_args) or _out_of_reach(name, joined(extra_args))


def _spelling(key: str) -> list[str]:
    flag = flag_of(key)
    if key.startswith("-") or "_" in flag or not _NAME.fullmatch(key):
        likely = owner_of(flag.lstrip("-").replace("_", "-")) or owner_of(long_name(flag.lstrip("-")) or "")
        hint = f"; for this one, {likely}" if likely else ""
        return [f"extra_args.{key}: write the flag's name without leading dashes and with dashes inside{hint}"]
    return []


def _contradictions(key: str, value: Extra) -> Iterator[str]:
    flag = flag_of(key)
    flag = long_name(flag) or flag
    set_off = value is False and not flag.startswith("no-")
    meant = negated(flag) if value is False and not set_off else flag
    if owner := owner_of(flag):
        yield f"extra_args.{key} is not an extra argument; {owner}"
    elif not set_off and (why := refusal_of(meant, value)):
        yield f"extra_args.{key} is {value!r}, and {why}"
    elif value == []:
        yield f"extra_args.{key} is an empty list, which vLLM drops; leave it out"
    elif option := next((item for item in _texts(value) if _OPTION.match(item)), None):
        yield f"extra_args.{key} has the value {option!r}, which vLLM would read as another flag; set a value"


def _texts(value: Extra) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [value] if isinstance(value, str) else []


def _repeated(extra_args: Mapping[str, Extra]) -> list[str]:
    """Return flags that are set twice: under two names, or whole and by a key of their JSON."""
    places = {key: (switch_of(flag_of(key)), *key.removesuffix("+").split(".")[1:]) for key in extra_args}
    return [
        f"extra_args sets one flag by both {one} and {other}; leave one"
        for one, other in combinations(sorted(extra_args), 2)
        if _overlap(places[one], places[other])
    ]


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _out_of_reach(name: str, flags: Mapping[str, Extra]) -> list[str]:
    """Return values that an instance's unit cannot carry: other engines, paths that it hides or cannot write."""
    found = _other_engines(flags)
    for key, text in _leaves(flags):
        label = f"extra_args.{key} is {text!r}"
        own = [f"{folder}/{name}" for folder in ("/var/lib/vllm", "/var/cache/vllm")]
        if key in written_paths():
            local = text.startswith("/") or "://" in text
            if local and not _inside(text, (*own, *_TEMPORARY)):
                found.append(f"{label}, where the engine cannot write; set a folder in {own[1]}")
        elif text.startswith("/") and _inside(text, _HIDDEN) and not _inside(text, own):
            folder = next(folder for folder in _HIDDEN if _inside(text, (folder,)))
            found.append(f"{label}, and the engine sees nothing of {folder}; set a path elsewhere, /opt for one")
    return found


def _inside(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in the values, with the keys that lead to it; a text may be JSON itself."""
    value = parsed(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    elif isinstance(value, str):
        yield key, value


def parsed(value: object) -> object:
    """Return a value whose text is a JSON object as that object."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _other_engines(flags: Mapping[str, Extra]) -> list[str]:
    found = []
    whole, local = flags.get("data-parallel-size", 1), flags.get("data-parallel-size-local")
    if local is not None and str(local) != str(whole):
        found.append(
            f"extra_args.data-parallel-size-local is {local!r} and data-parallel-size {whole!r}, and an instance is of "
            "one host; leave data-parallel-size-local out"
        )
    for flag in ("kv-transfer-config", "ec-transfer-config"):
        found += [
            f"extra_args.{flag} has {what}, and an instance's engine reaches no other; leave it out"
            for what in _partners(parsed(flags.get(flag)))
        ]
    events = parsed(flags.get("kv-events-config"))
    if isinstance(events, dict) and events.get("enable_kv_cache_events") and events.get("publisher") != "null":
        endpoint = str(events.get("endpoint", "tcp://*:5557"))
        if endpoint.startswith("tcp:"):
            found.append(
                f"extra_args.kv-events-config publishes at {endpoint!r}, and nobody reaches a port of the engine; "
                "leave it out"
            )
    return found


def _partners(config: object) -> Iterator[str]:
    """Yield what in a transfer configuration needs another engine or server, in nested connectors too."""
    if isinstance(config, dict):
        for key in ("kv_role", "ec_role"):
            if str(config.get(key, "both")).endswith(("_producer", "_consumer")):
                yield f"{key} {config[key]!r}"
        if config.get("kv_connector") in remote_connectors():
            yield f"kv_connector {config['kv_connector']!r}"
        for inner in config.values():
            yield from _partners(inner)
    elif isinstance(config, list):
        for inner in config:
            yield from _partners(inner)


def unknown_flags(extra_args: Mapping[str, Extra], release: Release) -> list[str]:
    """Return a sentence for each key that is no full name of one of the release's flags.

    argparse completes the beginning of a name where it fits one flag only, so such a key would set another flag.
    """
    version = f"vLLM {release.version}"
    found = []
    for key, value in extra_args.items():
        flag = flag_of(key)
        written = negated(flag) if value is False and key == flag else flag
        if written in release.flags:
            continue
        label = f"extra_args.{key}"
        if flag in release.flags:
            found.append(f"{label} is false, which {version} drops, and it has no --{written}; leave it out")
        elif flag in release.absent:
            found.append(f"{label} is {value!r}, which {version} does not have: {release.absent[flag]}")
        else:
            found.append(_unknown(key, release))
    return found


def _unknown(key: str, release: Release) -> str:
    """Return what a name that a release does not know may stand for, and what to write instead."""
    flag = flag_of(key)
    if whole := long_name(flag):
        return f"extra_args.{key} is the short name of {whole}; write {whole}"
    unknown = f"extra_args.{key} is no flag of vLLM {release.version}"
    longer = sorted(known for known in release.flags if known.startswith(flag))
    near = longer or difflib.get_close_matches(flag, release.flags, n=1)
    if len(longer) == 1:
        unknown += f", whose parser takes it for {longer[0]}"
    owner = owner_of(near[0]) if len(near) == 1 else None
    advice = f"write {', or '.join(near[:3])}" if near else "leave it out"
    return f"{unknown}; {owner or advice}"
