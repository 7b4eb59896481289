"""Read every path that `vllm serve` can answer out of a wheel, without installing it.

    python python/tools/extract_vllm_routes.py WHEEL > molecule/nginx/tests/vllm_routes.txt

Whatever its flags, modes and kinds of models: a path is a literal in a route's decorator, in `add_api_route`, or in a
mount, and all of them are read from the syntax tree. FastAPI's own pages are added. A plugin's paths are not in it.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from pathlib import Path
from typing import Final

_METHODS: Final = {"get", "post", "put", "delete", "patch", "head", "options", "websocket", "api_route", "route"}
_ADDS: Final = {"add_api_route", "add_api_websocket_route", "add_route", "add_websocket_route", "mount", "Mount"}
_PAGES: Final = ("/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc")


def routes_of(sources: dict[str, str]) -> list[str]:
    """Return the paths that a release's sources name as routes, sorted.

    Args:
        sources: path in the wheel to source text.
    """
    found: set[str] = set(_PAGES)
    for text in sources.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                found |= _paths(node)
    return sorted(found)


def _paths(call: ast.Call) -> set[str]:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name not in _METHODS | _ADDS:
        return set()
    given = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "path")]
    texts = [str(node.value) for node in given if isinstance(node, ast.Constant)]
    return {text for text in texts if text.startswith("/")}


def read_wheel(path: Path) -> dict[str, str]:
    """Return the sources of a wheel's entry points."""
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("vllm/entrypoints/") and name.endswith(".py")]
        return {name: wheel.read(name).decode() for name in names}


if __name__ == "__main__":
    print("\n".join(routes_of(read_wheel(Path(sys.argv[1])))))
