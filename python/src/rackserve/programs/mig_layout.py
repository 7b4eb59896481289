#!/usr/bin/env python3
"""Apply the MIG layout of a file; MIG instances do not survive a reboot, so a unit applies it at each boot.

This one file needs Python 3.9 and its standard library.

    mig_layout.py check FILE     exit 0 where every GPU has its layout, 1 where one has not
    mig_layout.py apply FILE     changes those that differ; a GPU in use is left alone, and that is an error

FILE is JSON: a list of gpu (index or UUID) and profiles, such as {"gpu": 0, "profiles": ["3g.40gb", "3g.40gb"]}. The
commands of nvidia-smi are in NVIDIA's MIG User Guide, "Getting Started with MIG".
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

_SLICE = re.compile(r"^\|\s+\d+\s+MIG (?P<profile>\S+)", re.MULTILINE)


class LayoutError(Exception):
    """The error message for an operator."""


def smi(*args: str, may_fail: bool = False) -> str:
    """Run nvidia-smi and return its output; raise with its message when it fails."""
    done = subprocess.run(["nvidia-smi", *args], capture_output=True, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        raise LayoutError(f"nvidia-smi {' '.join(args)}: {(done.stdout + done.stderr).strip()}")
    return done.stdout if done.returncode == 0 else ""


def mode_of(gpu: str) -> tuple[str, str]:
    """Return a GPU's MIG mode: the current one, and the one after a reset."""
    said = smi("-i", gpu, "--query-gpu=mig.mode.current,mig.mode.pending", "--format=csv,noheader")
    rows = [line.split(",") for line in said.splitlines() if line.count(",") == 1]
    if not rows:
        raise LayoutError(f"nvidia-smi does not tell the MIG mode of GPU {gpu}: {said.strip() or 'nothing'}")
    now, pending = rows[-1]
    return now.strip(), pending.strip()


def slices_of(gpu: str) -> Counter[str]:
    """Return the profiles of a GPU's MIG instances with their counts; nvidia-smi fails where there is none."""
    return Counter(_SLICE.findall(smi("mig", "-i", gpu, "-lgi", may_fail=True)))


def fits(gpu: str, profiles: list[str]) -> bool:
    """Return whether a GPU has its layout."""
    return mode_of(gpu)[0] == "Enabled" and slices_of(gpu) == Counter(profiles)


def cut(gpu: str, profiles: list[str]) -> None:
    """Replace the MIG instances of a GPU.

    Raises:
        LayoutError: when something computes on it, the mode needs a reset, or the driver refuses the profiles.
    """
    busy = smi("-i", gpu, "--query-compute-apps=pid", "--format=csv,noheader").split()
    if busy:
        raise LayoutError(f"GPU {gpu} is in use (process {', '.join(busy)}); stop its instances, then apply the layout")
    if mode_of(gpu)[0] != "Enabled":
        smi("-i", gpu, "-mig", "1")
        now, pending = mode_of(gpu)
        if now != "Enabled":
            raise LayoutError(f"GPU {gpu} needs a reset, or a reboot of the host, to switch MIG to {pending}")
    for args in (("-dci",), ("-dgi",)):
        smi("mig", "-i", gpu, *args, may_fail=True)  # there may be none; what is left shows below
    smi("mig", "-i", gpu, "-cgi", ",".join(profiles), "-C")
    if not fits(gpu, profiles):
        raise LayoutError(f"GPU {gpu} has {dict(slices_of(gpu))} instead of {profiles}")


def main(argv: list[str]) -> int:
    """Run the program."""
    action, path = argv
    wanted = [(str(entry["gpu"]), entry["profiles"]) for entry in json.loads(Path(path).read_text(encoding="utf-8"))]
    try:
        differ = [(gpu, profiles) for gpu, profiles in wanted if not fits(gpu, profiles)]
        for gpu, profiles in differ if action == "apply" else []:
            cut(gpu, profiles)
            print(f"GPU {gpu}: {', '.join(profiles)}")
    except LayoutError as refused:
        print(refused, file=sys.stderr)
        return 2
    return 1 if differ and action == "check" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
