"""What failed in one start: exceptions, crashes and error records, and which of them is the root."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rackserve.doctor._phases import IMPORTS, SERVING, later, marks_of, phase_of_frames, reached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackserve.doctor._lines import Line
    from rackserve.doctor._phases import Mark

# How much a failure says of the reason: the lower, the more.
REAL: Final = 0
RECORD: Final = 1
FOLLOWS: Final = 2
POINTS: Final = 3

_TRACEBACK: Final = "Traceback (most recent call last):"
_CAUSED: Final = "The above exception was the direct cause of the following exception"
_DURING: Final = "During handling of the above exception, another exception occurred"
_FRAME: Final = re.compile(r'^\s*File ["“](?P<path>[^"”]+)["”], line \d+(?:, (?P<where>in .+))?$')
_RAISED: Final = re.compile(r"^(?:\w+\.)*(?:[A-Z]\w*|\w*error)(?:: |:?$)")
_EXCEPTION: Final = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*)?"
    r"(?:Error|Exception|Exit|Interrupt|Failed|Failure|Mismatch|NotFound|IsEnabled|Unsupported|Panic)\w*"
    r"(?::(?: |$)|$|\()"
)
# What speaks without Python: the interpreter's and the kernel's last words, compilers, NCCL, argparse, systemd.
_NATIVE: Final = re.compile(
    r"^Fatal Python error: |^terminate called|^\*\*\* SIG\w+ received|Segfault encountered"
    r"|^(?:\S+: line \d+: +\d+ )?(?:Segmentation fault|Bus error|Illegal instruction|Aborted|Killed)\b"
    r"|panicked at |error while loading shared libraries|symbol lookup error|^(?:nvcc|ptxas|cicc)\s+(?:fatal|error)"
    r"|NCCL WARN |: fatal error: |^(?:[\w./-]+(?: \w+)?: )?error: |^(?:FATAL|Fatal)\b"
    r"|Main process exited, code=(?:killed|dumped)|Main process exited, code=exited, status=2\d\d/"
    r"|Failed with result '(?!exit-code|success|timeout|signal|core-dump)|killed by the OOM killer"
    r"|Failed to (?:load environment files|set up|run 'start' task)|Failed at step "
)
# Exceptions that only tell of another one, which stands above or in another process.
_POINTER: Final = re.compile(
    r"[Ss]ee (?:the )?(?:root cause|stack ?trace)|check the (?:stack trace|logs)|(?:failed|fails) to start"
    r"|(?:Engine|Background) loop (?:has|is)|is (?:already )?dead|\w*EngineDeadError|died unexpectedly"
    r"|died with exit code|RPC call to .* timed out|output_handler failed|finished unexpectedly"
    r"|fatal signal from worker"
    r"|encountered a fatal error|Engine core initialization failed|hit an exception|ChildFailedError|Cancelled"
    r"|^(?:SystemExit|KeyboardInterrupt|BrokenPipeError|EOFError|ConnectionResetError|GeneratorExit)\b"
    r"|^subprocess\.CalledProcessError: .*vllm\.model_executor\.models\.registry"
)
# What one process says when another is gone.
_FOLLOWER: Final = re.compile(
    r"Connection (?:closed|reset) by (?:remote )?peer|remote process exited|recvValue failed|Broken pipe"
    r"|ncclRemoteError|remote process exit|destroy_process_group|leaked (?:shared_memory|semaphore)|TCPStore"
    r"|Heartbeat monitor|^Dumping "
)
# After these the engine is over, even one that served.
_FATAL: Final = re.compile(
    r"EngineDeadError|encountered a fatal error|died unexpectedly|output_handler failed"
    r"|loop (?:has died|is not running)|is already dead|has errored|finished unexpectedly|fatal signal from worker"
)
# An engine that got so far has served; a start of one fails in other words.
_SERVED: Final = re.compile(
    r"EngineDeadError|output_handler failed|loop (?:has died|is not running)|is already dead|has errored"
    r"|finished unexpectedly"
)
# Warnings that say why the GPU is not found, long before the exception that only says that it is not.
_HINT: Final = re.compile(r"CUDA initialization: |Failed to import from vllm\._\w+ with")
# An error of one request, after which the engine goes on.
_REQUEST: Final = re.compile(r"Exception in ASGI application|Error in (?:preprocessing|applying)|^Invalid request")
_REQUEST_SOURCE: Final = re.compile(r"serving|protocol|api_router|server_utils|exception|httptools|middleware")
_REQUEST_FRAME: Final = re.compile(
    r"/(?:starlette|fastapi|uvicorn/protocols|uvicorn/middleware)/|entrypoints/\S*serving"
)
_ENGINE_PROCESS: Final = re.compile(r"(?i)engine|worker|core")
_IGNORED: Final = "Exception ignored in"
# Of these the engine does not end: a thread beside it, a task whose end nobody waits for.
_ASIDE: Final = re.compile(r"^(?:Exception in thread |Task exception was never retrieved|Exception in callback )")
_DETAILS: Final = 60
_SHOWN: Final = 400


@dataclass
class Failure:
    """An exception with its traceback, or another last word.

    Attributes:
        at: place of its line among the lines of the start.
        lines: its line, and what the same record says after it.
        frames: `path in function` of its traceback, outermost first.
        rank: REAL, or how little it says of the reason.
        native: whether no Python exception said it.
        inner: the exception that it was raised from, or while handling.
        caused: whether `inner` is its direct cause.
        request: whether it belongs to one request.
        hint: whether it is a warning, which counts beside a failure only.
    """

    at: int
    process: str
    lines: list[str]
    frames: list[str] = field(default_factory=list)
    rank: int = REAL
    native: bool = False
    inner: Failure | None = None
    caused: bool = False
    request: bool = False
    hint: bool = False

    @property
    def text(self) -> str:
        """Its line and details."""
        return "\n".join(self.lines)

    def chain(self) -> list[Failure]:
        """Return itself and what it was raised from, innermost first."""
        return [*(self.inner.chain() if self.inner else ()), self]

    def root(self) -> Failure:
        """Return the innermost direct cause; of what came up while handling another, the last is the reason."""
        return self.inner.root() if self.inner and self.caused and self.inner.rank == REAL else self

    def shown(self) -> str:
        """Return its line for an operator, with what an empty or introducing line leaves open."""
        first, *more = (line.strip() for line in self.lines)
        told = next((line for line in more if line and not line.startswith(("[", "FAILED", "/"))), "")
        if told and (first.endswith(":") or ": " not in first or "validation error" in first):
            first = f"{first} {told}"
        elif ": " not in first and self.frames:
            first = f"{first} ({self.frames[-1]})"
        return first[:_SHOWN]


class _Reader:
    """Reads the lines of one start; what different processes say at once is kept apart."""

    def __init__(self) -> None:
        self.found: list[Failure] = []
        self._frames: dict[tuple[str, str], list[str]] = {}
        self._notes: dict[tuple[str, str], list[str]] = {}
        self._link: dict[tuple[str, str], bool] = {}
        self._open: dict[tuple[str, str], Failure] = {}
        self._flag: dict[str, str] = {}

    def read(self, at: int, line: Line) -> None:
        """Take the next line."""
        key = (line.process, line.source)
        if line.quiet:
            self._close(line.process)
            if _HINT.search(line.text):
                self.found.append(Failure(at, line.process, [line.text], rank=RECORD, native=True, hint=True))
            return
        if _TRACEBACK in line.text:
            self._begin(at, line, key)
        elif _CAUSED in line.text or _DURING in line.text:
            self._link[key] = _CAUSED in line.text
        elif frame := _FRAME.match(line.text):
            self._frames.setdefault(key, []).append(f"{frame['path']} {frame['where'] or ''}".strip())
        elif key in self._frames and not _NATIVE.search(line.text):
            self._within(at, line, key)
        else:
            self._outside(at, line, key)

    def _close(self, process: str) -> None:
        for key in [key for key in self._open if key[0] == process]:
            del self._open[key]

    def _begin(self, at: int, line: Line, key: tuple[str, str]) -> None:
        said = line.text.partition(_TRACEBACK)[0].strip(" ,+|")
        if said and key in self._open and not line.text.startswith(("ERROR", "Exception")):
            self._open[key].lines.append(said)
        elif said:
            self._add(Failure(at, line.process, [said], rank=RECORD), line)
        self._open.pop(key, None)
        self._frames[key] = []
        self._notes[key] = []

    def _within(self, at: int, line: Line, key: tuple[str, str]) -> None:
        text = line.text
        if not text.strip() or text[0] in " ^~|" or text.startswith("[Previous line repeated"):
            return
        if not (_EXCEPTION.match(text) or (_RAISED.match(text) and key in self._notes)):
            self._notes.setdefault(key, []).append(text)
            return
        failure = Failure(at, line.process, [text, *self._notes.pop(key, [])], self._frames.pop(key))
        link = self._link.pop(key, None)
        if link is not None:
            failure.inner = next((one for one in reversed(self.found) if one.process == line.process), None)
            failure.caused = link
        self._add(failure, line)
        self._open[key] = failure

    def _outside(self, at: int, line: Line, key: tuple[str, str]) -> None:
        text = line.text
        if text.startswith(_IGNORED) or _ASIDE.match(text):
            self._flag[line.process] = text
            self._open.pop(key, None)
            return
        if _NATIVE.search(text):
            self._add(Failure(at, line.process, [text], native=True), line)
        elif _EXCEPTION.match(text):
            self._add(Failure(at, line.process, [text]), line)
        elif key in self._open:
            if len(self._open[key].lines) < _DETAILS:
                self._open[key].lines.append(text)
            return
        elif line.level and text.strip() and not text.startswith((" ", "^")):
            self._add(Failure(at, line.process, [text], rank=RECORD), line)
        else:
            return
        self._open[key] = self.found[-1]

    def _add(self, failure: Failure, line: Line) -> None:
        text = failure.lines[0]
        flag = self._flag.pop(line.process, "")
        failure.request = bool(
            _REQUEST.search(text)
            or _REQUEST.search(flag)
            or (_REQUEST_SOURCE.search(line.source) and not _ENGINE_PROCESS.search(line.process))
            or any(_REQUEST_FRAME.search(frame) for frame in failure.frames)
        )
        if _POINTER.search(text):
            failure.rank = POINTS
        elif _FOLLOWER.search(text) or flag.startswith(_IGNORED):
            failure.rank = FOLLOWS
        elif _ASIDE.match(flag):
            failure.rank = RECORD
        if _REQUEST.search(text):
            self._flag[line.process] = text
        self.found.append(failure)


@dataclass(frozen=True)
class Ended:
    """How a start failed.

    Attributes:
        failures: what may be the reason, the likeliest first.
        phase: the phase of the first of them; None where neither its frames nor the lines before show one.
    """

    failures: tuple[Failure, ...]
    phase: str | None


def failures_of(lines: Sequence[Line]) -> list[Failure]:
    """Return what failed in the lines of one start, in their order."""
    reader = _Reader()
    for at, line in enumerate(lines):
        reader.read(at, line)
    return reader.found


def ended_of(lines: Sequence[Line]) -> Ended | None:
    """Return how a start failed; None where it did not, or went on after each failure."""
    marks = marks_of(lines)
    served = next((mark.at for mark in marks if mark.phase == SERVING), None)
    found = [one for one in failures_of(lines) if not _survived(one, lines, marks, served)]
    if all(one.hint for one in found):
        return None
    chosen = _chosen([one for one in found if not one.hint])
    phase = SERVING if _SERVED.search(chosen.text) else reached(marks, chosen.at)
    if phase != SERVING:
        frames = next((known for one in reversed(chosen.chain()) if (known := phase_of_frames(one.frames))), None)
        # What fails before vLLM says anything fails while it is imported.
        phase = frames or phase or (IMPORTS if not chosen.frames else None)
    return Ended((chosen, *_beside(chosen, found)), phase)


def _survived(failure: Failure, lines: Sequence[Line], marks: Sequence[Mark], served: int | None) -> bool:
    """Return whether the engine went on after a failure: it was handled, or was one of a request."""
    if failure.hint or _FATAL.search(failure.text):
        return False
    if served is not None and failure.at > served:
        if failure.native:
            return False
        over = any(_FATAL.search(line.text) for line in lines[failure.at :] if not line.quiet)
        if failure.request:
            return True
        return not over and any(mark.phase == SERVING for mark in marks if mark.at > failure.at)
    then = reached([mark for mark in marks if mark.process == failure.process], failure.at)
    return any(
        mark.phase == SERVING or (mark.process == failure.process and later(mark.phase, then))
        for mark in marks
        if mark.at > failure.at
    )


def _chosen(found: Sequence[Failure]) -> Failure:
    """Return the failure that says most of the reason: the last before the first that points to it."""
    best = min(one.rank for one in found)
    real = [one for one in found if one.rank == best]
    points = next((one.at for one in found if one.rank == POINTS), None)
    before = [one for one in real if points is None or one.at < points]
    if not before:
        return real[0]
    told = [one for one in before if not one.native]
    return (told or before)[-1]


def _beside(chosen: Failure, found: Sequence[Failure]) -> Iterator[Failure]:
    """Return what was said beside the chosen failure, and may name the reason better."""
    if chosen.rank > REAL:
        yield from (one for one in found if one is not chosen)
        return
    yield from (one for one in found if one is not chosen and one.rank <= RECORD)
