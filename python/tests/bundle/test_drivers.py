"""Driver sets, from tiny packages of the real names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackserve.bundle._archive_key import make_archive_key
from rackserve.bundle._debs import index_repository, local_source
from rackserve.bundle._driver_choice import choose, held_back, refuse_unknown, sort_extras
from rackserve.bundle._drivers import build_driver_set
from rackserve.bundle._progress import Progress
from rackserve.bundle._supplied import unmet_dependencies
from rackserve.errors import InputError
from testing.debs import make_deb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rackserve.bundle._driver_choice import Available

OLD, NEW, VENDOR = "535.261.03-1", "535.309.01-0+deb12u1", "580.95.05-1"
KERNEL = "6.1.0-56-amd64"
BOOKWORM: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("nvidia-kernel-dkms", "libcuda1", "libnvidia-cfg1", "libnvidia-ml1"), (NEW, OLD)),
    **dict.fromkeys(("libnvidia-nvvm4", "nvidia-smi", "firmware-nvidia-gsp"), (NEW, OLD)),
    "nvidia-open-kernel-dkms": (OLD,),
    "nvidia-modprobe": (NEW, "535.161.07-1~deb12u1"),
    "nvidia-persistenced": ("535.171.04-1~deb12u1",),
}
NVIDIAS = ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-modprobe", "nvidia-persistenced")


def both() -> Available:
    return {**BOOKWORM, **{name: (*BOOKWORM.get(name, ()), VENDOR) for name in NVIDIAS}}


def test_the_newest_version_that_every_part_has_is_chosen() -> None:
    assert choose(dict(BOOKWORM), "proprietary")[0] == "535.309.01"
    assert choose(dict(BOOKWORM), "open")[0] == "535.261.03"


def test_versions_are_compared_as_numbers() -> None:
    versions = ("535.99.1-1", "535.261.03-1")
    assert choose(dict.fromkeys(BOOKWORM, versions), "open")[0] == "535.261.03"


def test_nvidias_own_packages_are_chosen_by_their_names() -> None:
    version, packages = choose(both(), "open")
    assert version == "580.95.05"
    assert packages == NVIDIAS


def test_a_named_version_is_taken_or_refused_with_those_there_are() -> None:
    assert choose(both(), "open", "535.261.03")[1][0] == "nvidia-open-kernel-dkms"
    with pytest.raises(InputError, match=r"driver 550\.1 \(open\) is not complete.*complete there: .*580\.95\.05"):
        choose(both(), "open", "550.1")


def test_no_complete_driver_is_refused_with_what_there_is() -> None:
    present = {name: versions for name, versions in BOOKWORM.items() if name != "libcuda1"}
    with pytest.raises(InputError, match=r"(?s)non-free.*Debian: .*libcuda1 is missing.*nvidia-smi 535\.309"):
        choose(present, "proprietary")


def test_what_holds_a_set_back_is_reported() -> None:
    assert held_back(dict(BOOKWORM), "proprietary", "535.309.01") == ()
    assert held_back(dict(BOOKWORM), "open", "535.261.03") == (
        "driver 535.309.01: the sources lack it for nvidia-open-kernel-dkms; the whole set is 535.261.03",
    )


def test_an_extra_part_counts_only_in_the_drivers_version() -> None:
    available: dict[str, tuple[str, ...]] = {"nvidia-fabricmanager-535": ("535.1.1-1",), "libnvidia-nscq-535": (OLD,)}
    present, missing = sort_extras(available, "535.261.03")
    assert present == ("libnvidia-nscq-535",)
    reason = "without it CUDA does not start on a host with NVSwitch (HGX, DGX)"
    assert missing == (
        f"fabric manager 535.261.03: the sources have only nvidia-fabricmanager-535 535.1.1-1; {reason}",
    )


def test_a_kernel_without_headers_is_refused_with_those_that_have_them() -> None:
    with pytest.raises(InputError, match=r"no headers of kernel 6\.1\.0-1-amd64; .*: 6\.1\.0-2-amd64, 6\.1\.0-3-amd64"):
        refuse_unknown(["6.1.0-1-amd64", "6.1.0-2-amd64"], ["6.1.0-3-amd64", "6.1.0-2-amd64"])


def test_a_set_for_no_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="no kernel is named"):
        refuse_unknown([], [KERNEL])


@pytest.fixture(scope="module")
def source(needs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> str:
    needs("apt-ftparchive", "dpkg-deb", "gpg")
    mirror = tmp_path_factory.mktemp("mirror")
    depends = {"libcuda1": "nvidia-alternative (= {})", "nvidia-open-kernel-dkms": "firmware-nvidia-gsp (= {})"}
    for name, versions in {**BOOKWORM, "nvidia-alternative": (NEW, OLD)}.items():
        for version in versions:
            make_deb(mirror, name, version, **({"Depends": depends[name].format(version)} if name in depends else {}))
    for name in (
        "dkms",
        "gcc",
        "make",
        "mokutil",
        "openssl",
        f"linux-headers-{KERNEL}",
        "linux-headers-6.1.0-56-common",
    ):
        make_deb(mirror, name)
    index_repository(mirror, make_archive_key(tmp_path_factory.mktemp("keys") / "mirror", "a test's mirror"))
    return local_source(mirror)


def test_a_set_is_of_one_version_with_all_it_needs(source: str, tmp_path: Path) -> None:
    key = make_archive_key(tmp_path / "key", "a test's archive key")
    out, scratch = tmp_path / "out", tmp_path / "apt"
    drivers = build_driver_set(
        [source], [KERNEL], "open", release="12", into=out, scratch=scratch, progress=Progress(), key=key
    )
    assert (drivers.release, drivers.version, drivers.flavour, drivers.kernels) == (
        "12",
        "535.261.03",
        "open",
        (KERNEL,),
    )
    assert drivers.packages["nvidia-alternative"] == OLD
    assert drivers.packages["nvidia-modprobe"] == NEW
    assert {*drivers.install, "nvidia-alternative"} == set(drivers.packages)
    assert [what.partition(":")[0] for what in drivers.missing] == [
        "driver 535.309.01",
        "fabric manager 535.261.03",
        "NSCQ 535.261.03",
    ]
    assert unmet_dependencies(out, tmp_path / "apt again") == {}


def test_headers_of_another_kernel_are_refused_before_anything_is_downloaded(source: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no headers of kernel 6\.1\.0-55-amd64; .*: {KERNEL}$"):
        build_driver_set(
            [source],
            ["6.1.0-55-amd64"],
            "open",
            release="12",
            into=tmp_path / "out",
            scratch=tmp_path / "apt",
            progress=Progress(),
        )
    assert not (tmp_path / "out").exists()
