"""Carry wheels to a machine that has most of their files: leave the files out here, put the wheels together there.

A wheel is its files, deflated, and what stands between them. Only the latter is carried; the files are read from an
environment on the other side that has the same packages installed, and deflated again. Each wheel counts only once its
sha256 is the whole one's: what is put together is the very wheel, or nothing. Standard library only, Python 3.9 on.

    thin_wheels.py thin WHEELS THIN --only torch --only nvidia-cublas
    thin_wheels.py whole THIN WHEELS --site VENV/lib/python3.12/site-packages
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

SUFFIX = ".thin"
# Never as the wheel has it in an environment: the installer rewrites the one, and moves the other.
_NOT_INSTALLED = re.compile(r"^[^/]+\.dist-info/RECORD$|^[^/]+\.data/")
_LOCAL_HEADER = 30
_LEVELS = (6, 9, 8, 7, 5, 4, 3, 2, 1)
_SHOWN = 3


def normal(name: str) -> str:
    """Return a package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def thin(wheel: Path, into: Path, left: set[str] | None = None) -> int:
    """Write what of a wheel cannot be read from an environment that has it; return the bytes written.

    Args:
        wheel: the whole wheel.
        into: the folder for `<wheel>.thin`.
        left: names of members that the other side lacks, which are carried as they are.
    """
    parts: list[list[Any]] = []
    carried: list[bytes] = []
    with zipfile.ZipFile(wheel) as archive, wheel.open("rb") as source:
        at = 0
        for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
            source.seek(member.header_offset)
            lengths = struct.unpack("<HH", source.read(_LOCAL_HEADER)[26:30])
            start = member.header_offset + _LOCAL_HEADER + sum(lengths)
            keep = _NOT_INSTALLED.search(member.filename) or member.filename in (left or set()) or member.is_dir()
            if keep:
                continue
            file = ["file", member.filename, member.compress_size, member.compress_type, member.CRC]
            parts += [["bytes", start - at], file]
            source.seek(at)
            carried.append(source.read(start - at))
            at = start + member.compress_size
        source.seek(at)
        carried.append(source.read())
        parts.append(["bytes", len(carried[-1])])
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    head = json.dumps({"wheel": wheel.name, "sha256": digest, "parts": parts}).encode()
    data = struct.pack("<Q", len(head)) + head + b"".join(carried)
    (into / f"{wheel.name}{SUFFIX}").write_bytes(data)
    return len(data)


def deflated(path: Path, size: int, kind: int, crc: int) -> bytes | None:
    """Return a file as its wheel stores it, `size` bytes long; None when it is another file or deflated otherwise."""
    data = path.read_bytes()
    if zlib.crc32(data) != crc:
        return None
    if kind == zipfile.ZIP_STORED:
        return data if len(data) == size else None
    for level in _LEVELS:
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(data) + packer.flush()
        if len(packed) == size:
            return packed
    return None


def whole(thinned: Path, site: Path, into: Path, pool: concurrent.futures.Executor) -> dict[str, Any]:
    """Put one wheel together; return its name, and what was wrong, if anything."""
    with thinned.open("rb") as source:
        head = json.loads(source.read(struct.unpack("<Q", source.read(8))[0]))
        wanted = [part for part in head["parts"] if part[0] == "file"]
        missing = [part[1] for part in wanted if not (site / part[1]).is_file()]
        if missing:
            return {"wheel": head["wheel"], "missing": missing}
        packed = iter(list(pool.map(lambda part: deflated(site / part[1], *part[2:]), wanted)))
        digest = hashlib.sha256()
        different = []
        target = into / head["wheel"]
        with target.open("wb") as out:
            for part in head["parts"]:
                data = source.read(part[1]) if part[0] == "bytes" else next(packed)
                if data is None:
                    different.append(part[1])
                    continue
                digest.update(data)
                out.write(data)
    if different or digest.hexdigest() != head["sha256"]:
        target.unlink()
        return {"wheel": head["wheel"], "different": different or ["deflated otherwise"]}
    return {"wheel": head["wheel"]}


def main() -> int:
    """Run either half; 1 when a wheel could not be put together."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("half", choices=("thin", "whole"))
    parser.add_argument("source", type=Path)
    parser.add_argument("into", type=Path)
    parser.add_argument("--only", action="append", default=[], help="thin: this package; repeat it")
    parser.add_argument("--carry", type=Path, help="thin: what `whole` wrote to --report before: carry what it lacked")
    parser.add_argument("--site", type=Path, help="whole: site-packages that has the files")
    parser.add_argument("--report", type=Path, help="whole: write here, as JSON, what each wheel lacked")
    asked = parser.parse_args()
    asked.into.mkdir(parents=True, exist_ok=True)
    if asked.half == "thin":
        only = {normal(name) for name in asked.only}
        lacked = json.loads(asked.carry.read_text(encoding="utf-8")) if asked.carry else []
        left = {row["wheel"]: {*row.get("missing", ()), *row.get("different", ())} for row in lacked}
        for wheel in sorted(asked.source.glob("*.whl")):
            if not only or normal(wheel.name.partition("-")[0]) in only:
                print(wheel.name, wheel.stat().st_size, thin(wheel, asked.into, left.get(wheel.name)))
        return 0
    with concurrent.futures.ThreadPoolExecutor() as each, concurrent.futures.ThreadPoolExecutor() as pool:
        thinned = sorted(asked.source.glob(f"*{SUFFIX}"))
        rows = list(each.map(lambda path: whole(path, asked.site, asked.into, pool), thinned))
    if asked.report:
        asked.report.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    failed = [row for row in rows if len(row) > 1]
    for row in failed:
        lacks = row.get("missing") or row["different"]
        print(f"{row['wheel']}: {len(lacks)} files not as in the wheel: {', '.join(lacks[:_SHOWN])}", file=sys.stderr)
    print(f"{len(rows) - len(failed)} of {len(rows)} wheels put together")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
