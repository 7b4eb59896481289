"""Whatever a medium holds, a bundle is accepted with the right bytes or refused in a sentence; nothing else happens.

A good bundle is changed at every key and every file, also under a signature of a trusted key: an attacker has no such
key, but a mistaken signer has. The changes are the same in each run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bundle import carried_bytes, import_bundle, split, verify
from rackserve.bundle._sign import attest, sign_file
from rackserve.cli import main as rackserve
from rackserve.errors import BundleError
from rackserve.programs import verify_bundle
from rackserve.programs.verify_bundle import ATTESTED, MANIFEST, SIGNATURE
from testing import bundles as making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackserve.bundle import Trust

AUDIT = "attestations/audit.json"
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "number": 7,
    "negative": -1,
    "float": 1.5,
    "text": "../x",
    "surrogate": "\ud800\x1b[2J",
    "long": "x" * 100_000,
    "list": [],
    "nested list": [[{}]],
    "object": {},
    "huge": 10**4000,
}
RAW = {
    "empty": b"",
    "not UTF-8": b"\xff\xfe{}",
    "BOM": b"\xef\xbb\xbf{}",
    "NUL": b"\0" * 100,
    "not JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "NaN": b'{"format": NaN, "parts": NaN, "manifest_sha256": NaN}\n',
    "infinite": b'{"format": 1e999, "parts": 1e999, "manifest_sha256": 1e999}\n',
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "less deep list": b'{"format": ' + b"[" * 900 + b"]" * 900 + b"}\n",
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "long number": b'{"format": ' + b"9" * 100_000 + b"}\n",
    "twin keys": b'{"format": 2, "format": 2}\n',
}


class Outcome:
    """What all ways to read a bundle say of it."""

    def __init__(self, state: Path, trust: Trust, folder: Path) -> None:
        self.state, self.trust, self.folder = state, trust, folder
        (folder / "signers").write_text(trust.signers)

    def of(self, bundle: Path) -> dict[str, str]:
        """Read it each way; a way that accepts it says nothing, and has then the right bytes."""
        return {
            "size": self._controller(lambda: carried_bytes(bundle)),
            "verify": self._controller(lambda: verify(bundle, self.trust)),
            "import": self._controller(lambda: self._imported(bundle)),
            "check": self._host("check", bundle),
            "unpack": self._host("unpack", bundle, self.folder / "out"),
        }

    def _controller(self, read: Callable[[], object]) -> str:
        try:
            read()
        except BundleError as refused:
            return str(refused)
        return ""

    def _imported(self, bundle: Path) -> None:
        shutil.rmtree(self.state / "bundles", ignore_errors=True)
        try:
            home, verified = import_bundle(bundle, self.trust)
        except BundleError:
            assert not (self.state / "bundles/current").exists()
            raise
        assert making.problems(home, self.trust) == ""
        assert verified.manifest.to_bytes() == (home / MANIFEST).read_bytes()
        for path in (home, *home.rglob("*")):
            assert path.stat().st_mode & 0o7777 == (0o755 if path.is_dir() else 0o644)

    def _host(self, verb: str, bundle: Path, *dest: Path) -> str:
        told = io.StringIO()
        argv = ["verify_bundle.pyz", verb, *map(str, (bundle, *dest)), "--signers", str(self.folder / "signers")]
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            patch.setattr(sys, "argv", argv)
            code = verify_bundle.main()
        assert told.getvalue().startswith(("ok: ", "refused: ")[code])
        for path in dest:
            assert path.exists() == (code == 0)
            if path.exists():
                assert self._is_whole(path)
                shutil.rmtree(path)
        return told.getvalue() if code else ""

    @staticmethod
    def _is_whole(folder: Path) -> bool:
        """Tell whether an unpacked bundle has what its manifest lists; a host reads no more of a manifest."""
        files = verify_bundle.parse_manifest((folder / MANIFEST).read_bytes())["files"]
        known = {MANIFEST, SIGNATURE, *verify_bundle.attestations(str(folder))}
        return verify_bundle.folder_problems(str(folder), files, known) == []


@pytest.fixture
def outcome(tmp_path: Path, trust: Trust, state: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    # ssh-keygen is asked in test_tampering.py; here it would be most of the time.
    real = verify_bundle._signature._keygen

    def keygen(data: bytes, action: str, *options: str) -> Any:
        key = (data, action, _bytes(options[3]), *(_bytes(word) for word in options[4:]))
        if key not in known:
            known[key] = real(data, action, *options)
        return known[key]

    known: dict[Any, Any] = {}
    monkeypatch.setattr(verify_bundle._signature, "_keygen", keygen)
    (tmp_path / "host").mkdir()
    return Outcome(state, trust, tmp_path / "host")


def _bytes(word: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(word).read_bytes()
    return word.encode()


@pytest.fixture
def bundle(good_bundle: Path, keys: dict[str, Path]) -> Path:
    attest(good_bundle, "audit", {"ok": True, "reason": "none", "findings": []}, keys["lab"])
    return good_bundle


def refused(found: dict[str, str], *ways: str) -> None:
    """Assert that each way refuses, in one sentence that a terminal shows as it is."""
    for way in ways or found:
        assert found[way], f"{way} accepts it"
    for said in filter(None, found.values()):
        assert len(said) < 3000
        assert all(char.isprintable() or char == "\n" for char in said), said


def keys_of(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value inside a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*above, key)
        if isinstance(inner, dict | list):
            yield from keys_of(inner, (*above, key))


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def mutations(text: bytes, seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """Yield changed JSON values: each key lacking, and other values at keys drawn by the seed."""
    ways = list(keys_of(json.loads(text)))
    drawn = random.Random(seed)  # noqa: S311 - not for secrets
    for way in ways:
        raw = json.loads(text)
        del at(raw, way[:-1])[way[-1]]
        yield f"{way} lacks", raw
    for _ in range(count):
        way, (name, value) = drawn.choice(ways), drawn.choice(sorted(VALUES.items()))
        raw = json.loads(text)
        at(raw, way[:-1])[way[-1]] = value
        yield f"{way} is {name}", raw
    for name, value in VALUES.items():
        yield f"an unknown key is {name}", {**json.loads(text), "zz": value}


def test_the_good_one_is_accepted_by_all(bundle: Path, outcome: Outcome, tmp_path: Path) -> None:
    assert set(outcome.of(bundle).values()) == {""}
    split(bundle, 1 << 20, tmp_path / "parts")
    assert set(outcome.of(tmp_path / "parts").values()) == {""}


def test_every_key_of_a_signed_manifest(bundle: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(bundle / "attestations")
    for module in (verify_bundle, verify_bundle._commands):
        monkeypatch.setattr(module, "verify_signature", lambda *_, **__: "lab")
    good = (bundle / MANIFEST).read_bytes()
    for what, raw in mutations(good, 1, 100):
        data = verify_bundle.canonical(raw)
        (bundle / MANIFEST).write_bytes(data)
        found = outcome.of(bundle)
        if found["import"]:
            refused(found, "verify", "import")
        else:
            assert set(found.values()) == {""}, what


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
@pytest.mark.parametrize("name", [MANIFEST, AUDIT])
def test_signed_bytes_of_any_kind(
    bundle: Path, outcome: Outcome, keys: dict[str, Path], name: str, data: bytes
) -> None:
    (bundle / name).write_bytes(data)
    sign_file(bundle / name, keys["lab"], verify_bundle.NAMESPACE if name == MANIFEST else ATTESTED)
    refused(outcome.of(bundle), "verify", "import", "check", "unpack")


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
@pytest.mark.parametrize("name", ["signature", "list of parts"])
def test_unsigned_bytes_of_any_kind(bundle: Path, outcome: Outcome, tmp_path: Path, name: str, data: bytes) -> None:
    if name == "signature":
        (bundle / SIGNATURE).write_bytes(data)
    else:
        split(bundle, 1 << 20, tmp_path / "parts")
        bundle = tmp_path / "parts"
        next(bundle.glob("*.parts.json")).write_bytes(data)
    refused(outcome.of(bundle), "verify", "import", "check", "unpack")


def test_every_key_of_a_signed_attestation(
    bundle: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (verify_bundle, verify_bundle._commands):
        monkeypatch.setattr(module, "verify_signature", lambda *_, **__: "lab")
    monkeypatch.setattr("rackserve.cli._bundle._trust", lambda _: outcome.trust)
    for what, raw in mutations((bundle / AUDIT).read_bytes(), 3, 30):
        (bundle / AUDIT).write_text(json.dumps(raw))
        found = outcome.of(bundle)
        said = {found[way] != "" for way in ("verify", "import", "check", "unpack")}
        assert len(said) == 1, what
        if True in said:
            refused(found, "verify")
        code = rackserve(["bundle", "verify", str(bundle)])
        told = capsys.readouterr()
        assert (code != 0) == (True in said), what
        assert all(char.isprintable() or char == "\n" for char in told.out)


@pytest.mark.parametrize("text", ["[1]", "{}", "null", "[", '[["a"]]', "9" * 5000], ids=lambda text: text[:9])
def test_a_list_of_a_hosts_files_of_any_kind(
    bundle: Path, trust: Trust, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    home, _ = import_bundle(bundle, trust)
    (tmp_path / "signers").write_text(trust.signers)
    (home / "host-parts.json").write_text(text)
    argv = ["check", str(home), "--signers", str(tmp_path / "signers"), "--parts", str(home / "host-parts.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["verify_bundle.pyz", *argv])
        assert verify_bundle.main() == 1
    assert "host-parts.json is not" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["blobs", "attestations", "a folder of blobs"])
def test_a_folder_that_is_a_link(bundle: Path, outcome: Outcome, tmp_path: Path, name: str) -> None:
    path = min(bundle.glob("blobs/*")) if name == "a folder of blobs" else bundle / name
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    found = outcome.of(bundle)
    refused(found, "verify", "import", "check", "unpack")
    assert "is a link" in found["import"]


def test_every_key_of_a_list_of_parts(bundle: Path, outcome: Outcome, tmp_path: Path) -> None:
    split(bundle, 1 << 20, tmp_path / "parts")
    path = next((tmp_path / "parts").glob("*.parts.json"))
    good = path.read_bytes()
    changes = [raw for _, raw in mutations(good, 2, 60)]
    changes += [{"parts": []}, {"parts": [{"name": name, "size": 1, "sha256": "0" * 64} for name in ("../x", "..")]}]
    for raw in changes:
        path.write_text(json.dumps(raw))
        found = outcome.of(tmp_path / "parts")
        if not (isinstance(raw, dict) and raw.get("parts") == json.loads(good)["parts"]):
            refused(found, "verify", "import", "check", "unpack")


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


def _listen(path: Path) -> None:
    here = os.getcwd()  # noqa: PTH109 - a socket's path is at most 108 bytes
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)
    os.chdir(here)


def _link_to_a_copy(path: Path) -> None:
    aside = next(above for above in path.parents if above.name == "changed") / "aside"
    path.rename(aside)
    path.symlink_to(aside)


FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "other bytes": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "link to a copy": _link_to_a_copy,
    "dangling link": _instead(lambda path: path.symlink_to("/nowhere")),
    "device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "pipe": _instead(os.mkfifo),
    "socket": _instead(_listen),
    "folder": _instead(lambda path: path.mkdir()),
}


@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
@pytest.mark.parametrize("form", ["whole", "parts"])
def test_every_file_of_any_kind(
    bundle: Path, outcome: Outcome, tmp_path: Path, form: str, change: Callable[[Path], object]
) -> None:
    if form == "parts":
        split(bundle, 1 << 20, tmp_path / "parts")
        bundle = tmp_path / "parts"
    names = sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())
    assert len(names) == (2 if form == "parts" else 10)
    for name in names:
        changed = tmp_path / "changed/bundle"
        shutil.copytree(bundle, changed)
        change(changed / name)
        found = outcome.of(changed)
        shutil.rmtree(tmp_path / "changed")
        # A list or a signature without its last newline, or with a byte after its end, says the same.
        if found["verify"] or not name.endswith((".parts.json", ".sig")):
            refused(found, "verify", "check", "unpack")
            # An import takes a content by any of its names; what it takes was compared above.
            assert found["import"] or change is FILES["missing"]


NAMES = [
    *("manifest.json.new", "x.parts.json", "attestations", "attestations/x.json.bak", "blobs/x"),
    *("a\x1b[2Jb", "a\nb", "\udcff", "\u202e", "\u00e9"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_file_that_is_added(bundle: Path, outcome: Outcome, name: str) -> None:
    if name == "attestations":
        shutil.rmtree(bundle / name)
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"{}")
    refused(outcome.of(bundle), "verify", "import", "check", "unpack")


def test_an_attestation_is_refused_alike_on_controller_and_host(
    bundle: Path, outcome: Outcome, keys: dict[str, Path], tmp_path: Path
) -> None:
    split_at = tmp_path / "parts"

    def both() -> None:
        refused(outcome.of(bundle), "verify", "import", "check", "unpack")
        split(bundle, 1 << 20, split_at)
        refused(outcome.of(split_at), "verify", "import", "check", "unpack")
        shutil.rmtree(split_at)

    attest(bundle, "audit", {}, keys["untrusted"])
    both()
    (bundle / f"{AUDIT}.sig").unlink()
    both()
    attest(bundle, "audit", {}, keys["lab"])
    (bundle / AUDIT).write_text('{"manifest_sha256": "' + "0" * 64 + '"}')
    sign_file(bundle / AUDIT, keys["lab"], ATTESTED)
    both()
    (bundle / AUDIT).unlink()
    both()


def test_unpack_carries_verified_attestations_and_no_others(
    bundle: Path, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "signers").write_text(trust.signers)

    def unpack(dest: str, *trusted: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["verify_bundle.pyz", "unpack", str(bundle), str(tmp_path / dest), *trusted])
        assert verify_bundle.main() == 0
        return tmp_path / dest

    signed = unpack("signed", "--signers", str(tmp_path / "signers"))
    assert verify(signed, trust).attested["audit"]["ok"] is True
    assert "attestations" not in capsys.readouterr().out
    summed = unpack("summed", "--manifest-sha256", verify_bundle.sha256_of(str(bundle / MANIFEST)))
    assert not (summed / "attestations").exists()
    assert "its attestations were not verified, which needs --signers" in capsys.readouterr().out


def test_a_signers_file_without_the_namespace_says_what_to_add(
    bundle: Path, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "signers").write_text(trust.signers.replace(f",{ATTESTED}", ""))
    monkeypatch.setattr(sys, "argv", ["v", "check", str(bundle), "--signers", str(tmp_path / "signers")])
    assert verify_bundle.main() == 1
    assert "add rackserve-attestation to the namespaces of that key's line" in capsys.readouterr().err


def test_bytes_after_the_archive_are_refused(bundle: Path, outcome: Outcome, tmp_path: Path) -> None:
    split(bundle, 1 << 20, tmp_path / "parts")
    (path,) = (tmp_path / "parts").glob("*.parts.json")
    part = path.with_name(json.loads(path.read_text())["parts"][-1]["name"])
    good = part.read_bytes()
    for data, accepted in ((good + b"\0" * 5000, True), (good + b"x", False), (good[:-1] + b"x", False)):
        part.write_bytes(data)
        listed = {"name": part.name, "size": len(data), "sha256": verify_bundle.sha256_of(str(part))}
        path.write_text(json.dumps({"parts": [listed]}))
        found = outcome.of(tmp_path / "parts")
        assert [not found[way] for way in ("verify", "import", "check", "unpack")] == [accepted] * 4
        if not accepted:
            assert "bytes after the end of the archive" in found["check"]


def test_parts_of_any_bytes(bundle: Path, outcome: Outcome, tmp_path: Path) -> None:
    split(bundle, 1 << 20, tmp_path / "parts")
    (path,) = (tmp_path / "parts").glob("*.parts.json")
    part = path.with_name(json.loads(path.read_text())["parts"][0]["name"])
    good = part.read_bytes()
    drawn = random.Random(4)  # noqa: S311 - not for secrets
    for number in range(30):
        data = bytearray(good)
        for _ in range(3):
            data[drawn.randrange(len(data) if number % 2 else 2048)] = drawn.randrange(256)
        data = data[: drawn.randrange(len(data))] if number % 5 == 0 else data
        part.write_bytes(data)
        listed = {"name": part.name, "size": len(data), "sha256": verify_bundle.sha256_of(str(part))}
        path.write_text(json.dumps({"parts": [listed]}))
        found = outcome.of(tmp_path / "parts")
        if found["verify"]:
            refused(found, "verify", "import", "check", "unpack")


def test_empty_folders_and_modes_are_made_normal(bundle: Path, outcome: Outcome, trust: Trust) -> None:
    (bundle / "lost+found").mkdir()
    (bundle / "blobs/zz/empty").mkdir(parents=True)
    for path in bundle.rglob("*"):
        path.chmod(0o777)
    umask = os.umask(0o077)
    try:
        assert set(outcome.of(bundle).values()) == {""}
        home, _ = import_bundle(bundle, trust)
    finally:
        os.umask(umask)
    assert not (home / "lost+found").exists()


@pytest.mark.parametrize("arguments", [["verify"], ["import"]])
def test_the_command_refuses_in_a_sentence(
    bundle: Path, keys: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/trust.yml").write_text(f"signers: [{{name: lab, key_file: {keys['lab']}.pub}}]\n")
    split(bundle, 1 << 20, tmp_path / "parts")
    next((tmp_path / "parts").glob("*.parts.json")).write_text('{"parts": [{"name": "../x"}]}')
    code = rackserve(["bundle", *arguments, "-i", str(tmp_path / "site"), str(tmp_path / "parts")])
    said = capsys.readouterr().err
    assert code != 0
    assert "which is not a part's name in this folder" in said
    assert "Traceback" not in said
