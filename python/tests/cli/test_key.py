"""`rackserve key`: a key is shown once, and its hash is what the inventory gets."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from rackserve import edge
from rackserve.cli import main

if TYPE_CHECKING:
    import pytest


def test_a_new_key_comes_with_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new"]) == 0
    key, line = capsys.readouterr().out.splitlines()
    assert line == f"- sha256: {edge.hash_of(key)}"
    assert main(["key", "new", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["sha256"] == edge.hash_of(made["key"])


def test_a_key_that_exists_is_hashed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("rsk-known\n"))
    assert main(["key", "hash"]) == 0
    assert capsys.readouterr().out == f"- sha256: {edge.hash_of('rsk-known')}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["key", "hash"]) == 2
