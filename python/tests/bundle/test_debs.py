"""Repositories, with real gpg, apt-ftparchive and apt."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import jinja2
import pytest

from rackserve._paths import project_root
from rackserve.bundle._archive_key import fingerprint_of, make_archive_key
from rackserve.bundle._debs import AptView, build_repository, download, index_repository, local_source, read_sources
from rackserve.bundle._progress import Progress
from rackserve.errors import BundleError
from testing.debs import make_deb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("apt-ftparchive", "dpkg-deb", "gpg")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive_key(tmp_path_factory.mktemp("keys") / "archive", "a test's archive key")


@pytest.fixture
def repository(tmp_path: Path, key: Path) -> Path:
    folder = tmp_path / "repository"
    make_deb(folder, "first", Depends="second (>= 1)")
    make_deb(folder, "second", "1:1.0")
    assert index_repository(folder, key) == {"first": "1.0", "second": "1:1.0"}
    return folder


def test_a_good_repository_is_accepted(repository: Path, tmp_path: Path) -> None:
    view = read_sources([local_source(repository)], tmp_path / "apt")
    download(view, ["first"], tmp_path / "got", Progress())
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == [
        "first_1.0_all.deb",
        "second_1%3a1.0_all.deb",
    ]


def alter_packages(repository: Path) -> None:
    index = repository / "Packages"
    index.write_text(index.read_text().replace("Package: second", "Package: sekond"))


def alter_inrelease(repository: Path) -> None:
    signed = repository / "InRelease"
    signed.write_text(signed.read_text().replace("Suite: rackserve", "Suite: rackserwe"))


def remove_inrelease(repository: Path) -> None:
    (repository / "InRelease").unlink()


def leave_unsigned(repository: Path) -> None:
    lines = (repository / "InRelease").read_text().splitlines(keepends=True)
    (repository / "Release").write_text("".join(lines[3 : lines.index("-----BEGIN PGP SIGNATURE-----\n")]))
    remove_inrelease(repository)


def sign_by_another(repository: Path) -> None:
    other = make_archive_key(repository.parent / "other", "somebody else")
    trusted = (repository / "archive-key.gpg").read_bytes()
    index_repository(repository, other)
    (repository / "archive-key.gpg").write_bytes(trusted)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (alter_packages, "Hash Sum mismatch"),
        (alter_inrelease, "The following signatures were invalid: BADSIG"),
        (remove_inrelease, "does not have a Release file"),
        (leave_unsigned, "is not signed"),
        (sign_by_another, "NO_PUBKEY"),
    ],
)
def test_apt_refuses_a_repository_that_was_altered(
    repository: Path, tmp_path: Path, tamper: Callable[[Path], None], said: str
) -> None:
    tamper(repository)
    with pytest.raises(BundleError, match=said):
        read_sources([local_source(repository)], tmp_path / "apt")


def test_apt_refuses_a_package_with_one_bit_flipped(repository: Path, tmp_path: Path) -> None:
    deb = repository / "first_1.0_all.deb"
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    view = read_sources([local_source(repository)], tmp_path / "apt")
    with pytest.raises(BundleError, match="Hash Sum mismatch"):
        download(view, ["first"], tmp_path / "got", Progress())


@pytest.fixture
def on_host(repository: Path, tmp_path: Path) -> AptView:
    """Return apt as the role `bundle` sets it up, in a folder that stands for the host's root."""
    folders = ("etc/rackserve", "var/lib/rackserve/apt/lists", "var/cache/rackserve/apt", "apt")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "apt/debian-12").symlink_to(repository)
    etc = tmp_path / "etc/rackserve"
    shutil.copyfile(repository / "archive-key.gpg", etc / "archive-key.gpg")
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
    templates.filters["comment"] = lambda *_, **__: ""
    values = {
        "ansible_managed": "",
        "stack_bundle_root": str(tmp_path),
        "__stack_config_dir": str(etc),
        "__stack_host_state": str(tmp_path / "var/lib/rackserve"),
        "__bundle_host": {"release": "12"},
    }
    for name in ("apt.conf", "bundle.list"):
        template = (project_root() / f"roles/bundle/templates/{name}.j2").read_text()
        text = templates.from_string(template).render(values)
        (etc / name).write_text(text.replace("/var/cache/rackserve/apt", f"{tmp_path}/var/cache/rackserve/apt"))
    return AptView((), {**os.environ, "APT_CONFIG": str(etc / "apt.conf"), "LC_ALL": "C"}, tmp_path)


@pytest.mark.parametrize("tamper", [alter_inrelease, leave_unsigned, sign_by_another])
def test_on_a_host_an_altered_repository_is_refused_even_after_a_good_one(
    on_host: AptView, repository: Path, tamper: Callable[[Path], None]
) -> None:
    on_host.get("update", what="read the lists")
    tamper(repository)
    with pytest.raises(BundleError, match="cannot read the lists"):
        on_host.get("update", what="read the lists")


def test_on_a_host_an_index_altered_after_a_good_one_is_never_read(on_host: AptView, repository: Path) -> None:
    on_host.get("update", what="read the lists")
    alter_packages(repository)
    on_host.get("update", what="read the lists")
    listed = on_host.cache("madison", "second", "sekond", what="list versions")
    assert [line.split()[0] for line in listed.splitlines()] == ["second"]


def test_on_a_host_no_setting_of_its_own_counts(on_host: AptView) -> None:
    dump = ["apt-config", "dump"]
    alone = subprocess.run(dump, env=on_host.environment, check=True, capture_output=True, text=True).stdout
    assert "APT::NeverAutoRemove" in subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    assert "APT::NeverAutoRemove" not in alone


def test_equal_packages_and_an_equal_key_make_equal_files(repository: Path, tmp_path: Path, key: Path) -> None:
    elsewhere = tmp_path / "another folder" / "deep"
    elsewhere.mkdir(parents=True)
    for deb in sorted(repository.glob("*.deb"), reverse=True):
        shutil.copyfile(deb, elsewhere / deb.name)
    moved = tmp_path / ("a-long-name-" * 15) / "key"  # longer than the path of a socket may be
    shutil.copytree(key, moved)
    time.sleep(1.1)
    index_repository(elsewhere, moved)
    names = sorted(path.name for path in repository.iterdir())
    assert names == [
        "InRelease",
        "Packages",
        "archive-key.gpg",
        "first_1.0_all.deb",
        "second_1_1.0_all.deb",
    ]
    assert {name: (elsewhere / name).read_bytes() for name in names} == {
        name: (repository / name).read_bytes() for name in names
    }


def test_indexing_again_changes_nothing(repository: Path, key: Path) -> None:
    before = {path.name: path.read_bytes() for path in repository.iterdir()}
    (repository / "Release").write_text("stale\n")
    index_repository(repository, key)
    assert {path.name: path.read_bytes() for path in repository.iterdir()} == before


def test_no_weak_hash_is_written(repository: Path) -> None:
    text = (repository / "Packages").read_text() + (repository / "InRelease").read_text()
    assert "SHA256" in text
    assert not {"MD5", "SHA1"} & set(text.replace("sum", "").replace(":", " ").split())


def test_a_repository_takes_what_a_package_needs_from_its_sources(repository: Path, tmp_path: Path, key: Path) -> None:
    built = build_repository(
        [local_source(repository)], ["first"], tmp_path / "built", tmp_path / "apt", Progress(), key=key
    )
    assert built == {"first": "1.0", "second": "1:1.0"}


def test_a_package_that_no_source_has_is_named(repository: Path, tmp_path: Path, key: Path) -> None:
    with pytest.raises(BundleError, match="Unable to locate package third"):
        build_repository(
            [local_source(repository)], ["third"], tmp_path / "built", tmp_path / "apt", Progress(), key=key
        )


def test_the_public_key_can_be_read_by_apts_user_and_is_binary(repository: Path, key: Path) -> None:
    public = repository / "archive-key.gpg"
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert not public.read_bytes().startswith(b"-----")
    assert bytes.fromhex(fingerprint_of(key)) in public.read_bytes()
