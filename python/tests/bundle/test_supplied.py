"""An operator's own packages."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from rackserve.bundle._archive_key import make_archive_key
from rackserve.bundle._debs import index_repository
from rackserve.bundle._supplied import add_supplied, parse_unmet, unmet_dependencies
from rackserve.errors import BundleError, InputError
from testing.debs import make_deb

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("apt-ftparchive", "dpkg-deb", "gpg")


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_a_supplied_package_joins_the_repository_under_apts_own_name_of_it(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, "grafana", "1:12.0").rename(tmp_path / "download.deb")
    assert add_supplied(deb, digest(deb).upper(), tmp_path / "repository") == "grafana"
    assert (tmp_path / "repository/grafana_1%3a12.0_all.deb").read_bytes() == deb.read_bytes()


def test_another_hash_than_the_pinned_one_is_refused_with_both(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, "grafana")
    with pytest.raises(InputError, match=f"its sha256 is {digest(deb)}, wanted {'0' * 64}"):
        add_supplied(deb, "0" * 64, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"grafana\.deb is missing; put the file there"):
        add_supplied(tmp_path / "grafana.deb", "0" * 64, tmp_path / "repository")


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "grafana.deb"
    page.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    with pytest.raises(InputError, match=r"(?s)cannot read the package .*not a Debian format archive"):
        add_supplied(page, digest(page), tmp_path / "repository")


def test_two_packages_of_one_name_and_version_are_refused(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    make_deb(repository, "grafana")
    deb = make_deb(tmp_path, "grafana", Section="web")
    with pytest.raises(InputError, match=r"grafana 1\.0, which the sources have too"):
        add_supplied(deb, digest(deb), repository)


def test_what_the_repository_lacks_is_named_however_deep(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    make_deb(repository, "top", Depends="middle, libc (>= 1) | musl")
    make_deb(repository, "middle", Pre_Depends="bottom", Depends="libc (>= 3), absent", Recommends="nicety")
    make_deb(repository, "libc", "2.0")
    index_repository(repository, make_archive_key(tmp_path / "key", "a test's archive key"))
    assert unmet_dependencies(repository, tmp_path / "apt") == {"middle": ("bottom", "libc (>= 3)", "absent")}


def test_a_repository_that_was_altered_is_not_looked_into(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    make_deb(repository, "top")
    index_repository(repository, make_archive_key(tmp_path / "key", "a test's archive key"))
    (repository / "Packages").write_text("Package: top\n")
    with pytest.raises(BundleError, match="Hash Sum mismatch"):
        unmet_dependencies(repository, tmp_path / "apt")


def test_nothing_unmet_is_nothing() -> None:
    assert parse_unmet("") == {}
