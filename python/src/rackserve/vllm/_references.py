"""Further repositories that an instance's arguments name: a draft model, a tokenizer, a configuration.

vLLM would look a repository's name up on the internet, and at the model's own commit, so on a host each becomes the
path of its snapshot, as adapters do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.servable import Use
from rackserve.vllm._adapters import snapshot_on_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rackserve.vllm._instances import Instance

    Snapshot = tuple[str, str]  # repository and commit

_REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
# Argument, the key in it, and the argument or key that pins its commit.
_ARGUMENTS: Final = (
    ("tokenizer", "", "tokenizer-revision"),
    ("hf-config-path", "", ""),
    ("generation-config", "", ""),
    ("qlora-adapter-name-or-path", "", ""),
    ("speculative-model", "", ""),
    ("speculative-config", "model", "revision"),
    ("speculative-config", "tokenizer", "tokenizer_revision"),
)


@dataclass(frozen=True)
class Reference:
    """A repository that an argument names; `key` is the one inside an argument that is a mapping."""

    argument: str
    key: str
    repo: str
    revision: str | None

    @property
    def label(self) -> str:
        """The argument as the inventory has it."""
        return f"extra_args.{self.argument}" + (f".{self.key}" if self.key else "")

    @property
    def is_draft(self) -> bool:
        """Whether it is the draft model of speculative decoding."""
        return self.argument == "speculative-model" or self.key == "model"


def references_of(instance: Instance) -> Iterator[Reference]:
    """Return the repositories that the arguments of an instance name; a path or a word such as `ngram` is none."""
    use = Use(extra_args=instance.extra_args)
    modalities = use.argument("default-mm-loras")
    adapters = modalities if isinstance(modalities, dict) else {}
    for argument, key, pin in (*_ARGUMENTS, *(("default-mm-loras", key, "") for key in adapters)):
        value = use.argument(argument)
        inside = value if key and isinstance(value, dict) else {}
        name = inside.get(key) if key else value
        revision = inside.get(pin) if key else use.argument(pin)
        if isinstance(name, str) and _REPO.fullmatch(name):
            yield Reference(argument, key, name, revision if isinstance(revision, str) else None)


def find_snapshot(reference: Reference, instance: Instance, carried: Iterable[Snapshot]) -> Snapshot | None:
    """Return the bundle's snapshot that a reference means; None when the bundle has none, or several."""
    found = [snapshot for snapshot in carried if snapshot[0] == reference.repo]
    if reference.revision:
        return next((snapshot for snapshot in found if snapshot[1] == reference.revision), None)
    own = (instance.model.repo, instance.model.revision)
    return own if own in found else found[0] if len(found) == 1 else None


def reference_problems(instance: Instance, carried: Iterable[Snapshot]) -> list[str]:
    """Return a sentence for every repository that an argument names and that the bundle does not have."""
    has, problems = sorted(carried), []
    for reference in references_of(instance):
        if find_snapshot(reference, instance, has):
            continue
        label = f"instance {instance.name!r}: {reference.label}"
        at = f" at {reference.revision}" if reference.revision else ""
        revisions = [revision for repo, revision in has if repo == reference.repo]
        if revisions and not reference.revision:
            problems.append(
                f"{label} is {reference.repo}, of which the bundle has {', '.join(revisions)}; leave one of them in "
                "bundle.yml, or name the commit beside it"
            )
        else:
            problems.append(
                f"{label} is {reference.repo}{at}, which is not in the bundle; add it to models in bundle.yml and "
                f"build the bundle again, or leave {reference.label} out"
            )
    return problems


def snapshots_of(instance: Instance, carried: Iterable[Snapshot]) -> frozenset[Snapshot]:
    """Return repository and commit of all that an instance needs: its model, adapters, and what arguments name."""
    has = list(carried)
    named = (find_snapshot(reference, instance, has) for reference in references_of(instance))
    return instance.snapshots | {snapshot for snapshot in named if snapshot}


def with_references(instance: Instance, carried: Iterable[Snapshot], hf_home: str) -> Instance:
    """Return an instance whose arguments name folders on the host instead of repositories of the bundle."""
    extra: dict[str, Any] = dict(instance.extra_args)
    has, use = list(carried), Use(extra_args=instance.extra_args)
    for reference in references_of(instance):
        snapshot = find_snapshot(reference, instance, has)
        if snapshot is None:
            continue
        path = snapshot_on_host(hf_home, *snapshot)
        dotted = f"{reference.argument}.{reference.key}"
        if not reference.key:
            extra[reference.argument] = path
            extra.pop("tokenizer-revision" if reference.argument == "tokenizer" else "", None)
        elif dotted in extra:
            extra[dotted] = path
        else:
            now = extra[reference.argument]
            settings: Mapping[str, Any] = now if isinstance(now, dict) else use.argument(reference.argument)
            extra[reference.argument] = {**settings, reference.key: path}
    return instance.model_copy(update={"extra_args": extra})
