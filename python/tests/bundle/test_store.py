"""The controller keeps bundles beside each other, and takes in no older one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle import import_bundle, prune, read_manifest, read_trust, split
from rackserve.bundle._sign import attest
from rackserve.bundle._store import Store
from rackserve.errors import BundleError, InputError
from testing import bundles as making

if TYPE_CHECKING:
    from pathlib import Path

    from rackserve.bundle import Trust


def test_no_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="rackserve bundle import"):
        read_manifest(tmp_path)


def test_import_switches_to_the_bundle(good_bundle: Path, trust: Trust, state: Path) -> None:
    home, _ = import_bundle(good_bundle, trust)
    assert (state / "bundles/current").resolve() == home
    assert import_bundle(good_bundle, trust)[0] == home


def test_a_refused_import_keeps_the_bundle_in_use(
    good_bundle: Path, tmp_path: Path, trust: Trust, keys: dict[str, Path], state: Path
) -> None:
    home, _ = import_bundle(good_bundle, trust)
    making.write_transport(tmp_path / "newer", keys["lab"], version=2, wheel=b"other")
    making.file_of(tmp_path / "newer").unlink()
    with pytest.raises(BundleError):
        import_bundle(tmp_path / "newer", trust)
    assert (state / "bundles/current").resolve() == home
    assert making.problems(home, trust) == ""


def test_no_content_is_stored_twice(
    good_bundle: Path, tmp_path: Path, trust: Trust, keys: dict[str, Path], state: Path
) -> None:
    import_bundle(good_bundle, trust)
    making.write_transport(tmp_path / "newer", keys["lab"], version=2, wheel=b"other")
    import_bundle(tmp_path / "newer", trust)
    trees = [path for path in (state / "bundles").rglob("*") if path.is_file() and path.parent.name == "locks"]
    assert len(trees) == 2
    assert len({path.stat().st_ino for path in trees}) == 1


def test_an_altered_bundle_is_mended_by_importing_it_again(
    good_bundle: Path, tmp_path: Path, trust: Trust, state: Path
) -> None:
    shutil.copytree(good_bundle, tmp_path / "copy")
    home, _ = import_bundle(good_bundle, trust)
    (home / making.WHEEL).write_bytes(b"x")
    assert making.problems(home, trust)
    import_bundle(tmp_path / "copy", trust)
    assert making.problems(state / "bundles/current", trust) == ""


def test_old_bundles_are_removed_and_those_that_are_kept_stay_whole(
    tmp_path: Path, trust: Trust, keys: dict[str, Path], state: Path
) -> None:
    homes = []
    for version in (1, 2, 3):
        making.write_transport(tmp_path / f"v{version}", keys["lab"], version=version, wheel=b"x" * 1000 * version)
        homes.append(import_bundle(tmp_path / f"v{version}", trust)[0])
        shutil.rmtree(tmp_path / f"v{version}")
    assert prune(2) == ([], 0)
    assert prune(1) == ([homes[0].name], 1000)
    assert [making.problems(home, trust) for home in homes[1:]] == ["", ""]
    assert prune(0)[0] == [homes[1].name]
    assert making.problems(state / "bundles/current", trust) == ""


class TestAttestation:
    @pytest.fixture(autouse=True)
    def _attested(self, good_bundle: Path, keys: dict[str, Path]) -> None:
        attest(good_bundle, "audit", {"findings": []}, keys["lab"])

    def test_it_comes_along_and_changes_no_manifest(self, good_bundle: Path, trust: Trust, tmp_path: Path) -> None:
        assert read_manifest(good_bundle) == making.write_tree(tmp_path / "without")
        split(good_bundle, 1 << 20, tmp_path / "parts")
        home, _ = import_bundle(tmp_path / "parts", trust)
        assert json.loads((home / "attestations/audit.json").read_text())["findings"] == []
        assert making.problems(home, trust) == ""

    def test_an_untrusted_one_is_refused(self, good_bundle: Path, trust: Trust, keys: dict[str, Path]) -> None:
        attest(good_bundle, "audit", {"findings": []}, keys["untrusted"])
        with pytest.raises(BundleError, match="not a trusted key"):
            import_bundle(good_bundle, trust)

    def test_an_altered_one_is_refused(self, good_bundle: Path, trust: Trust) -> None:
        path = good_bundle / "attestations/audit.json"
        path.write_text(path.read_text().replace("[]", "[1]"))
        with pytest.raises(BundleError, match=r"audit\.json\.sig is not a signature of audit\.json"):
            import_bundle(good_bundle, trust)

    def test_one_of_another_bundle_is_refused(
        self, good_bundle: Path, trust: Trust, tmp_path: Path, keys: dict[str, Path]
    ) -> None:
        making.write_transport(tmp_path / "other", keys["lab"], version=2)
        shutil.copytree(good_bundle / "attestations", tmp_path / "other/attestations")
        with pytest.raises(BundleError, match=r"audit\.json is about another bundle"):
            import_bundle(tmp_path / "other", trust)


class TestFloor:
    @pytest.fixture(autouse=True)
    def _newest(self, tmp_path: Path, keys: dict[str, Path], trust: Trust) -> None:
        making.write_transport(tmp_path / "v5", keys["lab"], version=5)
        import_bundle(tmp_path / "v5", trust)

    def test_an_older_bundle_is_refused(self, good_bundle: Path, trust: Trust) -> None:
        with pytest.raises(BundleError, match=r"version 1 of lab, older than version 5.*--allow-downgrade REASON"):
            import_bundle(good_bundle, trust)

    def test_it_is_taken_with_a_reason_which_is_recorded(self, good_bundle: Path, trust: Trust, state: Path) -> None:
        home, _ = import_bundle(good_bundle, trust, downgrade_reason="5 answers nonsense")
        assert (state / "bundles/current").resolve() == home
        rows = [json.loads(row) for row in (state / "bundles/bundle-history.jsonl").read_text().splitlines()]
        assert [(row["version"], row["downgrade_reason"]) for row in rows] == [(5, None), (1, "5 answers nonsense")]
        assert import_bundle(good_bundle, trust)[0] == home, "the one in use may be imported again"

    def test_a_downgrade_leaves_the_floor_where_it_was(
        self, good_bundle: Path, tmp_path: Path, keys: dict[str, Path], trust: Trust
    ) -> None:
        import_bundle(good_bundle, trust, downgrade_reason="5 answers nonsense")
        making.write_transport(tmp_path / "v3", keys["lab"], version=3)
        with pytest.raises(BundleError, match="older than version 5"):
            import_bundle(tmp_path / "v3", trust)

    def test_other_contents_under_a_known_version_are_refused(
        self, tmp_path: Path, keys: dict[str, Path], trust: Trust
    ) -> None:
        making.write_transport(tmp_path / "other", keys["lab"], version=5, wheel=b"other")
        with pytest.raises(BundleError, match=r"with other contents .*raise `version`"):
            import_bundle(tmp_path / "other", trust)

    def test_a_newer_bundle_is_taken(self, tmp_path: Path, keys: dict[str, Path], trust: Trust) -> None:
        making.write_transport(tmp_path / "v6", keys["lab"], version=6)
        assert import_bundle(tmp_path / "v6", trust)[1].manifest.version == 6

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "null",
            "5",
            '{"lab": 5}',
            '{"lab": {"version": "5", "id": "x"}}',
            '{"lab": {"id": "x"}}',
            "\ufeff{}",
        ],
    )
    @pytest.mark.parametrize("name", ["bundle-floor.json", "bundle-history.jsonl"])
    def test_a_record_that_cannot_be_read_is_not_ignored(
        self, good_bundle: Path, trust: Trust, state: Path, name: str, text: str
    ) -> None:
        (state / "bundles" / name).write_text(text)
        with pytest.raises(BundleError, match=rf"{name}, .* cannot be read .*restore it") as said:
            import_bundle(good_bundle, trust)
        assert "\n" not in str(said.value)

    @pytest.mark.parametrize(("name", "empty"), [("bundle-floor.json", "{}"), ("bundle-history.jsonl", "")])
    def test_a_record_that_is_lost_is_made_again_from_the_other(
        self, good_bundle: Path, trust: Trust, state: Path, name: str, empty: str
    ) -> None:
        before = json.loads((state / "bundles/bundle-floor.json").read_text())
        for lost in ("emptied", "removed"):
            (state / "bundles" / name).write_text(empty)
            if lost == "removed":
                (state / "bundles" / name).unlink()
            with pytest.raises(BundleError, match="older than version 5"):
                import_bundle(good_bundle, trust)
            import_bundle(good_bundle.parent / "v5", trust)
        assert json.loads((state / "bundles/bundle-floor.json").read_text()) == before

    def test_a_record_that_was_set_back_alone_does_not_count(
        self, good_bundle: Path, trust: Trust, state: Path
    ) -> None:
        path = state / "bundles/bundle-floor.json"
        path.write_text(json.dumps({"lab": {"version": 1, "id": read_manifest(good_bundle).id, "installed": None}}))
        with pytest.raises(BundleError, match="older than version 5"):
            import_bundle(good_bundle, trust)

    def test_a_history_keeps_a_line_for_each_import(
        self, tmp_path: Path, keys: dict[str, Path], trust: Trust, state: Path
    ) -> None:
        (state / "bundles/bundle-floor.json").unlink()
        import_bundle(tmp_path / "v5", trust)
        making.write_transport(tmp_path / "v6", keys["lab"], version=6)
        import_bundle(tmp_path / "v6", trust)
        rows = (state / "bundles/bundle-history.jsonl").read_text().splitlines()
        assert [json.loads(row)["version"] for row in rows] == [5, 6]


def test_two_imports_do_not_meet(good_bundle: Path, trust: Trust, state: Path) -> None:
    state.mkdir(parents=True)
    with Store(state / "bundles"), pytest.raises(BundleError, match="another rackserve is importing"):
        import_bundle(good_bundle, trust)
    import_bundle(good_bundle, trust)


IMPORT = """
import sys
from pathlib import Path
from rackserve.bundle import import_bundle
from rackserve.bundle._trust import Trust
import_bundle(Path(sys.argv[1]), Trust(Path(sys.argv[2]).read_text(), ""))
"""


@pytest.mark.parametrize("form", ["whole", "parts"])
def test_an_import_killed_anywhere_is_finished_by_the_next(
    tmp_path: Path, keys: dict[str, Path], trust: Trust, state: Path, form: str
) -> None:
    """Kill it at ten moments of its run; the next one ends as an undisturbed one does."""
    making.write_transport(tmp_path / "whole", keys["lab"], wheel=os.urandom(40_000_000))
    split(tmp_path / "whole", 8 << 20, tmp_path / "parts")
    source = tmp_path / form
    (tmp_path / "signers").write_text(trust.signers)
    argv = [sys.executable, "-c", IMPORT, str(source), str(tmp_path / "signers")]
    started = time.monotonic()
    subprocess.run(argv, check=True)
    whole = time.monotonic() - started
    for moment in range(10):
        shutil.rmtree(state)
        process = subprocess.Popen(argv)
        time.sleep(whole * (moment + 1) / 11)
        process.send_signal(signal.SIGKILL)
        process.wait()
        current = state / "bundles/current"
        if current.exists():
            assert making.problems(current, trust) == ""
        subprocess.run(argv, check=True)
        assert making.problems(current, trust) == ""
        assert [path.name for path in current.parent.glob(".*-*")] == []


TRUST_FILES = {
    "signers: []\n": "signers",
    "signers: [{name: a}]\n": "give one of key and key_file",
    "signers: [{name: a, key: not-a-key}]\n": "should match pattern",
    "signers: [{name: a, key_file: k, keyfile: x}]\n": "keyfile",
    "signers: [": "not YAML",
    "signers: [{name: a, key_file: keys/nowhere.pub}]\n": r"keys/nowhere\.pub .*rackserve bundle key nowhere",
}


@pytest.mark.parametrize(("text", "reason"), TRUST_FILES.items())
def test_a_wrong_trust_file_is_refused_by_key(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "trust.yml").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_trust(tmp_path / "trust.yml")


def test_a_missing_trust_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trust\.yml is missing"):
        read_trust(tmp_path / "trust.yml")


def test_a_trust_file_names_keys_by_themselves_or_by_file(tmp_path: Path, keys: dict[str, Path]) -> None:
    untrusted = making.public(keys["untrusted"])
    (tmp_path / "trust.yml").write_text(
        f"signers:\n  - {{name: lab, key_file: {keys['lab']}.pub, valid_before: 2027-12-31}}\n"
        f"  - {{name: other, key: {untrusted}}}\nrevoked: [{untrusted}]\n"
    )
    found = read_trust(tmp_path / "trust.yml")
    lab = making.public(keys["lab"])
    assert f'lab namespaces="rackserve-bundle,rackserve-attestation",valid-before="20271231Z" {lab}\n' in found.signers
    assert found.revoked == f"{untrusted}\n"
