"""The command line."""

from __future__ import annotations

import argparse
import json
import sys
import time

from ._check import check, write_metrics
from ._host import Host
from ._record import RECORD, RecordError

OK, DRIFT, CANNOT = 0, 1, 2
_USAGE = """\
Compare this host with the record of the last complete run of rackserve, and change nothing.

Exit 0: no difference; 1: differences; 2: it could not be compared, or not in every part.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=_USAGE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", metavar="FILE", default=RECORD, help=f"the record; default: {RECORD}")
    parser.add_argument("--metrics", metavar="FILE", help="replace FILE by metrics, and exit 0 with differences too")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args(argv)
    try:
        result = check(Host(), args.record)
    except RecordError as missing:
        print(missing, file=sys.stderr)
        return CANNOT
    if args.metrics:
        write_metrics(args.metrics, result, time.time())
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        for one in result["differences"]:
            print(one["text"])
        for kind, reason in result["unread"].items():
            print(f"not compared: {kind}: {reason}", file=sys.stderr)
        print(f"{len(result['differences'])} differences from the record of {result['written']}")
    if result["unread"]:
        return CANNOT
    return DRIFT if result["differences"] and not args.metrics else OK
