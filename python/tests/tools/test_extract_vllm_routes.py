"""The reader of routes knows the ways in which vLLM declares them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools/extract_vllm_routes.py"
_spec = importlib.util.spec_from_file_location("extract_vllm_routes", TOOL)
assert _spec is not None
assert _spec.loader is not None
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

SOURCE = """
@router.post("/v1/score", dependencies=[])
async def score(): ...

@router.websocket(path="/v1/realtime")
async def realtime(): ...

def attach(app):
    app.add_api_route("/abort", abort, methods=["POST"])
    app.routes.append(Mount("/metrics", other))
    settings.get("/not a route of a router, and taken all the same: rather one too many")
    settings.get("name"), settings.get(path)
"""


def test_every_way_to_name_a_path_is_read() -> None:
    found = tool.routes_of(
        {"vllm/entrypoints/a.py": SOURCE, "vllm/entrypoints/b.py": "@app.get('/load')\ndef f(): ..."}
    )
    ours = {"/v1/score", "/v1/realtime", "/abort", "/metrics", "/load"}
    assert ours <= set(found)
    assert {"/docs", "/openapi.json"} <= set(found)
    assert len(found) == len(ours) + 4 + 1
