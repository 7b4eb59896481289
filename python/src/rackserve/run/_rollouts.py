"""What the controller keeps of the last rollout of a site: its options, what it changed, and a request to pause."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from rackserve._paths import state_dir
from rackserve.errors import InputError, RunError
from rackserve.run._record import run_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any


@dataclass(frozen=True)
class KeptRollout:
    """A rollout as `--resume` and `--abort` need it.

    Attributes:
        limit: Ansible's host pattern.
        options: extra variables of the run: consent, steps.
        changed: `host:instance` to the digest that the rollout makes live; of what it removes, nothing.
    """

    limit: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)

    def with_rows(self, rows: Iterable[Mapping[str, Any]]) -> KeptRollout:
        """Return it with the rows of a plan: what the rollout, resumed or not, changes altogether."""
        found = {f"{row['host']}:{row['instance']}": str(row["wanted"]) for row in rows if row["wanted"]}
        return replace(self, changed={**self.changed, **found})

    @property
    def hosts(self) -> list[str]:
        """The hosts that it changes."""
        return list(dict.fromkeys(label.partition(":")[0] for label in self.changed))


def keep_rollout(inventory: Path, kept: KeptRollout) -> None:
    """Write down a rollout before it changes anything."""
    path = _path(inventory, "json")
    path.write_text(json.dumps({"inventory": str(inventory.resolve()), **asdict(kept)}, indent=2) + "\n")
    path.chmod(0o600)


def last_rollout(inventory: Path) -> KeptRollout:
    """Return the last rollout of a site from this controller.

    Raises:
        InputError: there is none, or what was kept of it cannot be read.
    """
    path = _path(inventory, "json")
    if not path.is_file():
        raise InputError(
            f"this controller knows no rollout of {inventory}; start one with `rackserve rollout`, "
            "or return hosts to the generation before with `rackserve rollback HOST`"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return KeptRollout(raw["limit"], dict(raw["options"]), dict(raw["changed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read; remove it, and run `rackserve rollout` again") from error


def pause_file(inventory: Path) -> Path:
    """Return the file whose existence asks a running rollout to pause after its batch."""
    return _path(inventory, "pause")


def ask_for_pause(inventory: Path) -> None:
    """Ask the rollout that runs to pause after its batch.

    Raises:
        InputError: none runs.
    """
    try:
        with run_lock(inventory):
            raise InputError(f"no run on the inventory {inventory} is going on, so there is nothing to pause")
    except RunError:
        pause_file(inventory).touch(mode=0o600)


def rollout_variables(
    *, consent: str | None = None, steps: Sequence[int | str] = (), pause_after: str | None = None
) -> dict[str, object]:
    """Return the extra variables of a rollout's options; those that are not given stay as the inventory has them."""
    given: dict[str, object] = {
        "stack_rollout_consent": consent,
        "stack_rollout_steps": list(steps),
        "stack_rollout_pause_after": pause_after,
    }
    return {name: value for name, value in given.items() if value}


def _path(inventory: Path, kind: str) -> Path:
    folder = state_dir() / "rollouts"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{hashlib.sha256(str(inventory.resolve()).encode()).hexdigest()[:16]}.{kind}"
