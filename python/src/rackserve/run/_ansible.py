"""The only importer of ansible_runner: runs a playbook, passes on its events, returns the result of each host.

Untyped data ends here. No secret is given to ansible-runner (it writes extra variables, passwords and the environment
to files); the one file it writes with the whole environment in it is removed before Ansible starts.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ansible_runner

from rackserve import history
from rackserve._paths import project_root
from rackserve.errors import RunError
from rackserve.run._events import Recorder
from rackserve.run._record import write_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackserve.run._events import RunEvent, RunResult

# ssh cannot prompt about an unknown host key while the runner owns the terminal: fail with a message instead.
_SSH_NO_PROMPT: Final = "-o StrictHostKeyChecking=yes"


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    on_event: Callable[[RunEvent], None],
    record_dir: Path,
    limit: str | None = None,
    check: bool = False,
    tags: Sequence[str] = (),
    variables: Mapping[str, object] | None = None,
) -> RunResult:
    """Run a playbook to its end and keep its record in `record_dir` (summary.json and Ansible's own output).

    Args:
        playbook: the playbook's file.
        inventory: the site's directory.
        on_event: called for every play, task and host result, in the order they happen.
        record_dir: a new folder, see `new_record_dir`.
        limit: Ansible's host pattern, or all hosts.
        check: run in check mode: change nothing.
        tags: only the tasks of these tags.
        variables: extra variables; the record contains them, so no secrets.

    Raises:
        RunError: Ansible could not be started, or ended before any host had a task.
    """
    recorder = Recorder(on_event)
    started = dt.datetime.now(dt.UTC)
    with _signals_restored():
        runner = ansible_runner.run(
            private_data_dir=str(record_dir),
            project_dir=str(project_root()),
            ident="ansible",
            playbook=str(playbook),
            inventory=str(inventory),
            limit=limit,
            cmdline="--check" if check else None,
            tags=",".join(tags) or None,
            **({"extravars": dict(variables)} if variables else {}),
            envvars=_environment(record_dir),
            quiet=True,
            suppress_env_files=True,
            event_handler=recorder.take,
            status_handler=_forget_environment,
        )
    shutil.rmtree(record_dir / "artifacts" / "ansible" / "fact_cache", ignore_errors=True)
    result = recorder.result(int(runner.rc if runner.rc is not None else 1), str(runner.status), record_dir)
    write_summary(result, playbook, inventory, started, limit=limit, check=check)
    if result.status == "canceled":
        left = "nothing was changed" if check else "hosts may be half done: run it again"
        raise RunError(f"the run was interrupted; {left}. Record: {record_dir}")
    if not recorder.saw_stats or (result.rc != 0 and not result.failures and not result.unreachable):
        raise RunError(f"ansible-playbook {playbook.name} could not run (exit {result.rc})\n{recorder.error_output()}")
    return result


def _environment(record_dir: Path) -> dict[str, str]:
    bin_dir = str(Path(sys.executable).parent)  # not resolved: the venv's folder, where ansible-playbook lies
    callbacks = project_root() / "python" / "src" / "rackserve" / "ansible" / "callback"
    others = os.environ.get("ANSIBLE_CALLBACK_PLUGINS")
    return {
        "PATH": f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(project_root() / "ansible.cfg"),
        # ansible-runner adds its own folder to this variable, which hides the one that ansible.cfg names.
        "ANSIBLE_CALLBACK_PLUGINS": f"{callbacks}{os.pathsep}{others}" if others else str(callbacks),
        "ANSIBLE_SSH_EXTRA_ARGS": os.environ.get("ANSIBLE_SSH_EXTRA_ARGS", _SSH_NO_PROMPT),
        "ANSIBLE_NOCOLOR": "1",
        history.RUN_DIR: str(record_dir),
    }


def _forget_environment(status: Mapping[str, Any], runner_config: Any) -> None:  # noqa: ANN401 - ansible-runner's class is untyped
    """Remove the file in which ansible-runner keeps the whole environment of this process, secrets too."""
    if status["status"] == "running":
        (Path(runner_config.artifact_dir) / "command").unlink(missing_ok=True)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM: ansible-runner replaces both, and does not restore them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
