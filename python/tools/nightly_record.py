"""Writes the verdicts of `make nightly` to the table of each scenario's last run.

python python/tools/nightly_record.py .test-results/verdicts   # exit 1 when a part failed
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
from pathlib import Path
from typing import NamedTuple

RECORD = Path(__file__).parents[2] / "docs/measurements/nightly.md"
PREFIX = "scenario_"
HEAD = """# Nightly scenarios

`make nightly` runs the scenarios that are too long for every change, and writes this table: the last run of each.
Seconds are those of the machine that ran it; some scenarios share it with another.

| scenario | verdict | seconds | date (UTC) | commit |
|---|---|---|---|---|
"""


class Verdict(NamedTuple):
    """What one part ended with."""

    name: str
    code: int
    seconds: int


def read_verdicts(text: str) -> list[Verdict]:
    """Reads the lines that .ci/parts.sh writes: name, exit code, seconds."""
    rows = (line.split() for line in text.splitlines())
    return [Verdict(name, int(code), int(seconds)) for name, code, seconds in rows]


def record(old: str, verdicts: list[Verdict], date: str, commit: str) -> str:
    """Returns the table with the rows of these scenarios replaced or added; the others stay as they are."""
    rows = {line.split("|")[1].strip(): line for line in old.removeprefix(HEAD).splitlines() if line.startswith("| ")}
    for name, code, seconds in verdicts:
        if name.startswith(PREFIX):
            scenario = name.removeprefix(PREFIX)
            verdict = "FAILED" if code else "ok"
            rows[scenario] = f"| {scenario} | {verdict} | {seconds} | {date} | {commit} |"
    return HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows))


def commit_of(folder: Path) -> str:
    """Returns the short name of the commit that is checked out, with `+` when files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def main(argv: list[str] | None = None) -> int:
    """Writes the record.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        0 when every part passed, else 1.
    """
    parser = argparse.ArgumentParser(description="Writes the verdicts of make nightly to the table of last runs.")
    parser.add_argument("verdicts", type=Path, help="file of lines NAME CODE SECONDS")
    parser.add_argument("--record", type=Path, default=RECORD, help="the table")
    args = parser.parse_args(argv)
    verdicts = read_verdicts(args.verdicts.read_text(encoding="utf-8"))
    old = args.record.read_text(encoding="utf-8") if args.record.is_file() else HEAD
    today = dt.datetime.now(dt.UTC).date().isoformat()
    args.record.parent.mkdir(parents=True, exist_ok=True)
    args.record.write_text(record(old, verdicts, today, commit_of(RECORD.parents[2])), encoding="utf-8")
    return int(any(verdict.code for verdict in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
