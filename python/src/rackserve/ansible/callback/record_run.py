"""Keeps what a run does: its locks, which it gives back at the end, and its signed record.

It sees every event of `rackserve apply` and of a plain ansible-playbook alike. A lock is given back when the run ends,
well or not, and when it is interrupted by SIGINT or SIGTERM; a run that is killed leaves its locks, and the next run on
this controller sees that the process has ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from ansible import context
from ansible.executor.task_queue_manager import TaskQueueManager
from ansible.playbook.play import Play
from ansible.plugins.callback import CallbackBase

from rackserve import history
from rackserve._paths import state_dir
from rackserve.errors import RackserveError

ACTION: Final = "run_lock"
# A run shows that it is alive when a task starts, not more often than this.
RENEW_S: Final = 60.0


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Prints nothing but what could not be given back or written."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record_run"

    def __init__(self) -> None:
        super().__init__()
        self._play: Any = None
        self._passwords: dict[str, Any] = {}
        self._folder = Path()
        self._renewed = 0.0
        self._owner = os.getpid()

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ANN401 - Ansible's classes are untyped
        """Begin a run; no lock is taken and nothing is written yet."""
        name = Path(str(playbook._file_name)).name  # noqa: SLF001
        given = os.environ.pop(history.RUN_DIR, None)
        sources = [str(source).rstrip("/,") for source in context.CLIARGS.get("inventory") or ()]
        inventory = ", ".join(Path(source).name for source in sources) or "?"
        run = Path(given).name if given else history.new_run_id(name)
        self._folder = Path(given) if given else state_dir() / "runs" / run
        holder = history.this_process(run, name, inventory, "")
        sites = [str(Path(source).resolve()) for source in sources]
        history.begin(history.PresentRun(holder, context.CLIARGS.get("subset"), sites))
        self._end_when_interrupted()

    def v2_playbook_on_play_start(self, play: Any) -> None:  # noqa: ANN401
        """Keep what a play of ours needs to reach the hosts as this one does."""
        self._play = play

    def set_play_context(self, play_context: Any) -> None:  # noqa: ANN401
        """Keep the passwords that the operator typed; they stay in memory."""
        self._passwords = {"conn_pass": play_context.password, "become_pass": play_context.become_pass}

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ANN401, ARG002, FBT001
        """Show the hosts that the run is alive."""
        run = history.present()
        if task.action == ACTION and run is not None and not run.holder["key"]:
            run.holder["key"] = history.fingerprint()
        if run is not None and not run.locks:
            self._renewed = time.monotonic()
        elif run is not None and time.monotonic() - self._renewed > RENEW_S:
            self._renewed = time.monotonic()
            self._renew(run)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:  # noqa: ANN401
        """Note that a lock is asked for: its answer may not come."""
        run = history.present()
        asks = task.action == ACTION and task.args.get("state") != "read" and not task.loop
        if run is not None and asks and host.name not in run.locks:
            run.asked[host.name] = None

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Keep a result."""
        self._take(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002
        """Keep a result, and the name of the task that failed."""
        run = self._take(result)
        if run is not None and not ignore_errors:
            run.failed[result.host.name] = result.task.get_name()

    def v2_runner_on_skipped(self, result: Any) -> None:  # noqa: ANN401
        """Forget that a lock was asked for: check mode takes none."""
        run = history.present()
        if run is not None:
            run.asked.pop(result.host.name, None)

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401
        """Keep the name of a host that was not reached."""
        run = history.present()
        if run is not None:
            run.unreachable.append(result.host.name)

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ANN401
        """End the run."""
        run = history.present()
        if run is None:
            return
        run.failed = {host: task for host, task in run.failed.items() if stats.failures.get(host)}
        failed = any(stats.failures.values()) or any(stats.dark.values())
        self._end("failed" if failed else "ok")

    def _take(self, result: Any) -> history.PresentRun | None:  # noqa: ANN401
        run = history.present()
        if run is not None:
            run.take_result(result.host.name, result.task.get_name(), result.result)
        return run

    def _end(self, outcome: str) -> None:
        """Write the record and give every lock back, once."""
        run = history.present()
        if run is None or not (run.locks or run.asked or run.lost):
            return
        keeps = bool(run.locks or run.lost) and run.has_changed()
        try:
            if keeps:
                run.sign_lines(outcome)
        except RackserveError as failed:
            self._display.warning(f"the record of this run is not signed and was not written: {failed}")
            keeps = False
        names = [*run.locks, *(host for host in run.asked if host not in run.locks)]
        released = self._on_hosts("release", names) if names else {}
        for host in run.locks:
            found = released.get(host, {})
            if not found.get("mine"):
                said = found.get("msg") or "it was broken, or the host could not be reached"
                self._display.warning(
                    f"{host}: the lock of this run was not given back: {said}; the next run from this controller takes "
                    f"it over, from another one: rackserve unlock {host} --reason TEXT"
                )
        if keeps:
            lines = {host: line for host, line in run.lines.items() if released.get(host, {}).get("stored")}
            stored = {host: history.digest_of(line) for host, line in sorted(lines.items())}
            history.write_record(self._folder, {**run.entry(outcome), "sites": run.sites, "stored": stored})
        run.locks.clear()
        run.asked.clear()

    def _renew(self, run: history.PresentRun) -> None:
        """Show the hosts that the run is alive, and end it where another one broke its lock."""
        found = self._on_hosts("take", list(run.locks))
        for one in found.values():
            if "lock" in one:
                run.take_lock(one["lock"])
        if run.lost:
            said = history.refusals({host: found[host] for host in run.lost if host in found})
            self._display.error(f"this run ends here, as another one broke its lock: {said}")
            sys.exit(1)

    def _on_hosts(self, state: str, names: list[str]) -> dict[str, dict[str, Any]]:
        """Run the action on hosts as the present play reaches them: same inventory, variables and passwords."""
        variables, loader = self._play.get_variable_manager(), self._play.get_loader()
        inventory = variables._inventory  # noqa: SLF001
        task = {"name": "lock | Update the lock", ACTION: {"state": state}, "become": True, "tags": ["always"]}
        play = Play.load(
            {"name": "Update the locks", "hosts": names, "gather_facts": False, "tasks": [task]},
            variable_manager=variables,
            loader=loader,
        )
        seen = _Results()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        restricted, subset = inventory._restriction, inventory._subset  # noqa: SLF001
        manager = TaskQueueManager(
            inventory,
            variables,
            loader,
            self._passwords,
            forks=context.CLIARGS.get("forks"),
            run_additional_callbacks=False,
        )
        manager._callback_plugins, manager._start_at_done = [seen], True  # noqa: SLF001
        try:
            inventory._restriction = inventory._subset = None  # noqa: SLF001
            manager.run(play)
        finally:
            manager.cleanup()
            inventory._restriction, inventory._subset = restricted, subset  # noqa: SLF001
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return seen.results

    def _end_when_interrupted(self) -> None:
        """Let SIGTERM end this process as Ctrl-C does, through Ansible's cleanup, after which the run is ended."""
        before = signal.getsignal(signal.SIGTERM)
        manager = getattr(before, "__self__", None)  # the handler is a method of the play's TaskQueueManager
        if not isinstance(manager, TaskQueueManager):
            return
        cleanup = manager.cleanup

        def clean_up() -> None:
            try:
                cleanup()
            finally:
                self._end("interrupted")

        def end(number: int, _frame: object) -> None:
            if os.getpid() != self._owner:  # a worker that has just been forked
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            for worker in manager.get_workers():
                if worker is not None and worker.is_alive() and worker.pid:
                    os.kill(worker.pid, number)
            sys.exit(128 + number)

        manager.cleanup = clean_up
        signal.signal(signal.SIGTERM, end)


class _Results(CallbackBase):  # type: ignore[misc]
    """Keeps the results of a play of ours, and prints none."""

    def __init__(self) -> None:
        super().__init__()
        self._init_callback_methods()
        self.results: dict[str, dict[str, Any]] = {}

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        self.results[result.host.name] = dict(result.result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401, ARG002, FBT001, FBT002
        self.results[result.host.name] = dict(result.result)

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401
        self.results[result.host.name] = {"msg": str(result.result.get("msg", ""))}
