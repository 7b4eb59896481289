"""A line of an engine's journal without what stands before its words: host, process, rank, logger."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# Levels at which a logger tells what goes on; a user's prompt is logged at these too (vllm 0.32.0,
# vllm/entrypoints/logger.py).
_QUIET: Final = frozenset({"DEBUG", "INFO", "WARNING"})
_LEVEL: Final = r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)"
_COLOUR: Final = re.compile(r"(?:\x1b|\^\[)\[[0-9;]*m")
# What journalctl, container runtimes, `kubectl logs` and terminals with a frame put before a line.
_CARRIERS: Final = (
    re.compile(r"^\s*[│┃] ?"),
    re.compile(r"^[A-Z][a-z]{2} +\d+ [\d:]{8} \S+ [\w@.\\-]+(?:\[\d+\])?: ?"),
    re.compile(r"^\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]? (?=\S| {2})"),
    re.compile(r"^\| (?:ERROR|INFO|WARNING) +\| \w+ \| ?"),
    re.compile(r"^(?:[\w.-]+ +)?(?:\||>>) ?"),
    re.compile(r"^\[\w+\]: ?"),
)
_FRAME_END: Final = re.compile(r"\s+[│┃]$")
# A logger's head so near to the beginning is the line's own, whatever carries the line.
_HEAD: Final = re.compile(
    rf"(?:\([\w ,:.=-]*pid=\d+[^()]*\) )*{_LEVEL} \d\d-\d\d [\d:]{{8}}(?:\.\d+)? \[?[\w./-]+:\d+\]"
)
_NEAR: Final = 80
_PROCESS: Final = re.compile(r"^\((?P<name>[\w:.-]+)(?:,? [^()]*?)?,? ?pid=\d+[^()]*\) ?")
_LOGGERS: Final = (
    # vllm 0.32.0, vllm/logging_utils/formatter.py; before 0.7 without the first bracket
    re.compile(rf"^{_LEVEL} \d\d-\d\d [\d:]{{8}}(?:\.\d+)? (?P<source>\[?[\w./-]+:\d+\]) ?"),
    re.compile(rf"^- {_LEVEL} - (?P<source>\S+) - "),
    re.compile(rf"^(?:- [\w.]+ - )?{_LEVEL}\b(?P<source>):? *(?:-+ )?"),
    re.compile(rf"^(?P<source>[\w./-]+\.py:\d+)[:\]]? +(?:-+ )?{_LEVEL}\b:? *"),
)
# Messages of C++ libraries: [W1123 19:31:41.388591902 utils.cpp:68]
_GLOG: Final = re.compile(r"^\[?(?P<letter>[IWEF])\d{3,4} [\d:.]+ (?:\d+ )?(?P<source>[\w./-]+:\d+)\] ?")
_GLOG_LEVELS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_WARNED: Final = re.compile(r"^\S+\.py:\d+: \w*Warning: ")


class Line(NamedTuple):
    """A line; `process` and `source` are empty where it names none, `level` where no logger wrote it."""

    process: str
    level: str
    source: str
    text: str

    @property
    def quiet(self) -> bool:
        """Whether it tells what goes on, which is no error whatever words stand in it."""
        return self.level in _QUIET


def line_of(raw: str) -> Line:
    """Return what a line of a journal says, and who says it.

    A progress bar overwrites its line with carriage returns; the last state is kept.
    """
    text = _COLOUR.sub("", raw.rstrip("\r\n").rsplit("\r", 1)[-1])
    text = _FRAME_END.sub("", text)
    if (head := _HEAD.search(text)) and head.start() < _NEAR:
        text = text[head.start() :]
    for carrier in _CARRIERS:
        text = carrier.sub("", text)
    process = ""
    while hit := _PROCESS.match(text):
        process, text = hit["name"], text[hit.end() :]
    text = re.sub(r"^\[rank\d+\]: ?", "", text)
    if hit := _GLOG.match(text):
        return Line(process, _GLOG_LEVELS[hit["letter"]], hit["source"], text[hit.end() :])
    for logger in _LOGGERS:
        if hit := logger.match(text):
            return Line(process, hit["level"], hit["source"].strip("[]"), text[hit.end() :])
    return Line(process, "WARNING" if _WARNED.match(text) else "", "", text)
