"""Every line of a lock is read, or is an error that names it; nothing is dropped in silence."""

from __future__ import annotations

import pytest

from rackserve.bundle._locks import for_target, hashes, pins, read_lock, without
from rackserve.bundle._sbom import python_components
from rackserve.bundle._wheels import yanked
from rackserve.errors import InputError

A, B = "a" * 64, "b" * 64
HASH = f" \\\n    --hash=sha256:{A}\n"
PLAIN = f"# made by uv\nplain==1.0{HASH}"


@pytest.mark.parametrize(
    ("line", "name", "version"),
    [
        (f"x==1.0 ; python_version >= '3.9'{HASH}", "x", "1.0"),
        (f"x[extra]==1.0{HASH}", "x", "1.0"),
        (f"Caps_Name==1.0{HASH}", "caps-name", "1.0"),
        (f"ruamel.yaml == 1.0{HASH}", "ruamel-yaml", "1.0"),
        (f"x===1.0{HASH}", "x", "1.0"),
        (f"x==1.0 --hash=sha256:{A} --hash=sha256:{B}\n", "x", "1.0"),
        (f"x==1.0 --hash sha256:{A}\n", "x", "1.0"),
        (f"x==1.0+cpu{HASH}    # via y\n", "x", "1.0+cpu"),
        (f"x==1.0 \\\r\n    --hash=sha256:{A}\r\n", "x", "1.0"),
        (f"  x==1.0 --hash=sha256:{A}", "x", "1.0"),
    ],
)
def test_a_pin_is_read_however_it_is_written(line: str, name: str, version: str) -> None:
    text = PLAIN + line
    assert pins(text) == {"plain": "1.0", name: version}
    assert hashes(text)[name] >= {A}
    assert [component.name for component in python_components(text)] == ["plain", name]
    assert without(text, {name}).replace("    # via y\n", "") == PLAIN


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x>=1.0", "line 4 of the lock pins no version: 'x>=1.0'"),
        ("x==1.*", "pins no version"),
        ("x==1.0,!=1.1", "pins no version"),
        ("x", "pins no version: 'x'"),
        ("x @ https://example.org/x.whl", "pins no version"),
        ("./x.whl", "is no pin: './x.whl'"),
        ("-r other.txt", "is no pin: '-r other.txt'"),
        ("-e .", "is no pin"),
        (f"x==1.0 --hash=sha512:{A}", "has no sha256"),
        ("x==1.0 --hash=sha256:abc", "has no sha256"),
        (f"x==1.0 --config-settings=a --hash=sha256:{A}", "an option that is no hash"),
        (f"Plain==2.0 --hash=sha256:{A}", "line 4 of the lock pins plain again, after line 2"),
        ("x=1.0", "is no pin"),
    ],
)
def test_a_line_that_is_no_pin_is_an_error_that_names_it(line: str, said: str) -> None:
    for read in (pins, hashes, python_components):
        with pytest.raises(InputError) as refused:
            read(f"{PLAIN}{line}\n")
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "line", ["--index-url https://example.org/simple", "-i https://x", "--only-binary=:all:", "", "#"]
)
def test_what_names_no_package_is_no_pin_and_no_error(line: str) -> None:
    assert pins(f"{line}\n{PLAIN}") == {"plain": "1.0"}


@pytest.mark.parametrize(
    ("line", "python", "kept"),
    [
        ("x==1.0 ; python_version >= '3.12'", "3.11", False),
        ("x==1.0 ; python_version >= '3.12'", "3.12", True),
        ("x==1.0 ; sys_platform == 'win32'", "3.11", False),
        ("x==1.0 ; platform_machine == 'aarch64' or sys_platform == 'linux'", "3.11", True),
        ("x[a,b]==1.0", "3.11", True),
        ("X==1.0", "3.11", True),
    ],
)
def test_a_targets_lock_has_plain_pins_of_what_is_installed_there(line: str, python: str, *, kept: bool) -> None:
    text = for_target(f"{line}{HASH}{PLAIN}", python)
    assert text == (f"x==1.0{HASH}" if kept else "") + PLAIN
    assert all(pin.plain for pin in read_lock(text))


def test_a_plain_lock_is_the_targets_as_it_is() -> None:
    text = f"--index-url https://x\n{PLAIN}y==2{HASH}# end"
    assert for_target(text, "3.11") == text


def test_a_marker_that_only_a_host_can_answer_is_an_error() -> None:
    with pytest.raises(InputError, match="line 1 of the lock asks for python_full_version"):
        for_target(f"x==1.0 ; python_full_version < '3.11.4'{HASH}", "3.11")


LOG = """2026-11-30T02:55:53,666 WARNING: The candidate selected for download or install is a yanked version: 'attrs' \
candidate (version 21.1.0 at https://host/attrs-21.1.0-py2.py3-none-any.whl (from https://host/simple/attrs/))
2026-11-30T02:55:53,666 Reason for being yanked: Installable but not importable on Python 3.4.
2026-11-30T02:55:53,674 Saved ./attrs-21.1.0-py2.py3-none-any.whl
"""


def test_a_withdrawn_release_is_told_once_with_its_reason() -> None:
    said = "attrs 21.1.0 was withdrawn by its author:"
    assert yanked(LOG + LOG) == [f"{said} Installable but not importable on Python 3.4."]
    assert yanked(LOG.replace("Reason for being yanked:", "Saved")) == [f"{said} no reason given"]
    assert yanked("2026-11-30T02:55:53,674 Saved ./attrs-21.2.0-py2.py3-none-any.whl\n") == []
