"""Shows a run as it goes, on stderr, and lays out tables for stdout."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._rollout_text import record_line, records_of
from rackserve.run import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from rackserve.checks import EdgeTarget
    from rackserve.run import RunEvent, RunResult

_STYLES = {EventKind.CHANGED: "yellow", EventKind.FAILED: "red", EventKind.UNREACHABLE: "red", EventKind.OK: "green"}


class Progress:
    """One line per finished task: role, name, seconds, and how many hosts ended how."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.status("starting") if sys.stderr.isatty() else None
        self._title = ""
        self._since = 0.0
        self._counts: dict[EventKind, int] = {}
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_task()
        if self._live:
            self._live.stop()

    def take(self, event: RunEvent) -> None:
        """Show an event."""
        if event.kind in (EventKind.PLAY, EventKind.TASK, EventKind.STATS):
            self._finish_task()
            self._title = ""
        if event.kind is EventKind.PLAY:
            self._print(Text(event.play, style="bold"))
        elif event.kind is EventKind.TASK:
            self._title, self._since, self._counts = task_title(event.role, event.task), time.monotonic(), {}
            if self._live:
                self._live.update(Text(self._title))
        elif event.kind is not EventKind.STATS:
            self._counts[event.kind] = self._counts.get(event.kind, 0) + 1
            for line in filter(None, map(record_line, records_of(event))):
                self._print(Text(f"    {line}"))
            notes = event.data.get("notes")
            self._notes += map(str, notes) if isinstance(notes, list) else []

    def _finish_task(self) -> None:
        # A task that every host skipped has nothing to say.
        if self._title and any(kind is not EventKind.SKIPPED for kind in self._counts):
            self._print(task_line(self._title, time.monotonic() - self._since, self._counts))
        for note in self._notes:
            self._print(Text(f"    {note}", style="yellow"))
        self._title, self._notes = "", []

    def _print(self, text: Text) -> None:
        if self._live:
            self._console.print(text)
        else:
            print(text.plain, file=sys.stderr, flush=True)


@contextmanager
def shown(*others: Callable[[RunEvent], None]) -> Iterator[Callable[[RunEvent], None]]:
    """Show a run as it goes; the function that it gives takes the run's events, and hands them to the others first."""
    with Progress() as progress:

        def take(event: RunEvent) -> None:
            for other in (*others, progress.take):
                other(event)

        yield take


def show_edge(edge: EdgeTarget) -> None:
    """Show the edge that is checked next."""
    print(f"Asking through {edge.host} ({edge.address}:{edge.port})", file=sys.stderr)


def task_title(role: str, task: str) -> str:
    """Return "role | task", with the role named once."""
    name = task.removeprefix(f"{role} : ")
    return f"{role} | {name}" if role else name


def task_line(title: str, seconds: float, counts: dict[EventKind, int]) -> Text:
    """Return the line of a finished task."""
    line = Text(f"  {title}  {seconds:.1f} s ")
    for kind in (EventKind.OK, EventKind.CHANGED, EventKind.FAILED, EventKind.IGNORED, EventKind.UNREACHABLE):
        if counts.get(kind):
            line.append(f" {kind.value} {counts[kind]}", style=_STYLES.get(kind, ""))
    return line


def outcome(result: RunResult, messages: Sequence[str]) -> dict[str, object]:
    """Return what `--json` prints of a run that may have changed hosts.

    Args:
        result: the run's.
        messages: one for each host that failed or could not be reached.
    """
    return {
        "ok": result.ok,
        "hosts": [asdict(host) for host in result.hosts],
        "failures": [asdict(failure) for failure in result.failures],
        "unreachable": [asdict(failure) for failure in result.unreachable],
        "messages": list(messages),
        "record": str(result.record_dir),
    }


def conclude(
    result: RunResult, messages: Sequence[str], *, said: Sequence[str] = (), found: Mapping[str, object] | None = None
) -> int:
    """Print the end of a run that may have changed hosts; return the command's exit code.

    Args:
        result: the run's.
        messages: one for each host that failed or could not be reached.
        said: texts for people, printed before the messages.
        found: what `--json` prints in their place; None without that option.
    """
    if found is not None:
        print(json.dumps(found, indent=2))
    else:
        for text in said:
            print(text)
        for message in messages:
            print(message, file=sys.stderr)
        print(f"record: {result.record_dir}", file=sys.stderr)
    return EXIT_OK if result.ok else EXIT_CHECK_FAILED


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns; the last one is as long as it is."""
    table = [list(head), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
