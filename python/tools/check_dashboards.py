"""Asks a Prometheus what every panel of the dashboards asks it, and names those that would show nothing.

    python python/tools/check_dashboards.py URL         # panels that need a GPU or the like are listed, not counted
    python python/tools/check_dashboards.py URL --all   # they count too: on a site that has all of it

Reach the loopback of the monitoring host by `ssh -N -L 9090:127.0.0.1:9090 HOST`. The fleet has to have had requests
in the last five minutes: a percentile of nothing is nothing. Exit 1: a panel shows nothing. Exit 2: no Prometheus
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import httpx

from rackserve.dashboards import live, panels

FOLDER = Path(__file__).parents[2] / "roles/grafana/files/dashboards"


def main(argv: list[str] | None = None) -> int:
    """Print each panel's number of series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of Prometheus, as http://127.0.0.1:9090")
    parser.add_argument("--all", action="store_true", help="count the panels too that need what not every site has")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the dashboards' JSON")
    arguments = parser.parse_args(argv)
    failed = 0
    try:
        with httpx.Client(base_url=arguments.url, timeout=30) as client:
            for board in panels.read(arguments.folder).values():
                for query in panels.queries(board):
                    found = live.numbers(client.get("/api/v1/query", params={"query": query.expr}).json())
                    excused = bool(query.needs) and not arguments.all
                    failed += found == 0 and not excused
                    word = "ok" if found else f"needs {query.needs}" if excused else "NOTHING"
                    print(f"{found:5d}  {word:28s} {query.name}")
    except (httpx.HTTPError, ValueError) as error:
        print(f"{arguments.url} does not answer as Prometheus does: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
