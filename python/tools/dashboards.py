"""Writes the dashboards that the role grafana places, as JSON below roles/grafana/files/dashboards.

python python/tools/dashboards.py           # writes them
python python/tools/dashboards.py --check   # changes nothing; exit 1 names the files that are not what it would write
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rackserve.dashboards import grafana
from rackserve.dashboards.boards import BOARDS

FOLDER = Path(__file__).parents[2] / "roles/grafana/files/dashboards"


def main(argv: list[str] | None = None) -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is stale")
    check = parser.parse_args(argv).check
    wanted = {FOLDER / f"{board.name}.json": grafana.text(board) for board in BOARDS}
    found = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    stale = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    for path in stale:
        print(f"{path.name}: {'is not what the generator writes' if check else 'written'}")
        if check:
            continue
        if path in wanted:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
