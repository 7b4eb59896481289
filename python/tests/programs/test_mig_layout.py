"""GPUs are cut into slices as a file asks; nvidia-smi is a stand-in that keeps modes and slices."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.programs import mig_layout

if TYPE_CHECKING:
    from pathlib import Path

LINE = "|   0  MIG {:<16}   19        7          4:1     |"


class Smi:
    """Stands in for nvidia-smi: one GPU with a mode and slices."""

    def __init__(self) -> None:
        self.mode, self.resets, self.busy = "Disabled", True, ""
        self.slices: list[str] = []
        self.log: list[list[str]] = []

    def __call__(self, words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked = words[1:]
        self.log.append(asked)
        text = " ".join(asked)
        out, code = "", 0
        if "mig.mode" in text:
            out = f"{self.mode}, Enabled\n"
        elif "compute-apps" in text:
            out = self.busy
        elif "-mig 1" in text:
            self.mode = "Enabled" if self.resets else self.mode
        elif "-lgi" in text:
            out, code = "\n".join(LINE.format(name) for name in self.slices), 0 if self.slices else 6
        elif "-dgi" in text:
            self.slices = []
        elif found := re.search(r"-cgi (\S+) -C", text):
            self.slices = found[1].split(",")
        return subprocess.CompletedProcess(words, code, out, "")

    def changes(self) -> list[list[str]]:
        return [words for words in self.log if {"-mig", "-dgi", "-cgi"} & set(words)]


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch) -> Smi:
    stand_in = Smi()
    monkeypatch.setattr("rackserve.programs.mig_layout.subprocess.run", stand_in)
    return stand_in


@pytest.fixture
def layout(tmp_path: Path) -> str:
    path = tmp_path / "mig.json"
    path.write_text(json.dumps([{"gpu": 0, "profiles": ["3g.40gb", "1g.10gb", "3g.40gb"]}]))
    return str(path)


def test_a_gpu_is_cut_and_then_left_as_it_is(smi: Smi, layout: str) -> None:
    assert mig_layout.main(["check", layout]) == 1
    assert smi.changes() == []
    assert mig_layout.main(["apply", layout]) == 0
    assert (smi.mode, sorted(smi.slices)) == ("Enabled", ["1g.10gb", "3g.40gb", "3g.40gb"])
    smi.log.clear()
    assert mig_layout.main(["check", layout]) == mig_layout.main(["apply", layout]) == 0
    assert smi.changes() == []


def test_another_cut_replaces_the_old_one(smi: Smi, layout: str) -> None:
    smi.mode, smi.slices = "Enabled", ["7g.80gb"]
    assert mig_layout.main(["check", layout]) == 1
    assert mig_layout.main(["apply", layout]) == 0
    assert "7g.80gb" not in smi.slices


def test_a_gpu_that_computes_is_not_cut(smi: Smi, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    smi.mode, smi.slices, smi.busy = "Enabled", ["7g.80gb"], "4711\n"
    assert mig_layout.main(["apply", layout]) == 2
    assert smi.changes() == []
    assert "GPU 0 is in use (process 4711)" in capsys.readouterr().err


def test_a_mode_that_waits_for_a_reset_is_reported(smi: Smi, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    smi.resets = False
    assert mig_layout.main(["apply", layout]) == 2
    assert "needs a reset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("Enabled, Disabled\n", ("Enabled", "Disabled")),
        ("[N/A], [N/A]\n", ("[N/A]", "[N/A]")),
        ("WARNING: infoROM is corrupted\nEnabled, Enabled\n", ("Enabled", "Enabled")),
    ],
)
def test_the_mode_is_read_beside_what_else_is_said(
    monkeypatch: pytest.MonkeyPatch, said: str, mode: tuple[str, str]
) -> None:
    monkeypatch.setattr(mig_layout, "smi", lambda *_: said)
    assert mig_layout.mode_of("0") == mode


@pytest.mark.parametrize("said", ["", "nonsense\n"])
def test_a_mode_that_is_not_told_is_an_error(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(mig_layout, "smi", lambda *_: said)
    with pytest.raises(mig_layout.LayoutError, match="does not tell the MIG mode of GPU 0"):
        mig_layout.mode_of("0")
