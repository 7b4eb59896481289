from __future__ import annotations

from typing import TYPE_CHECKING

from rackserve._apt import Source, machine_sources, mirror_lines, parse_deb822, parse_one_line, parse_options

if TYPE_CHECKING:
    from pathlib import Path

DEB822 = """\
Types: deb
# an older snapshot
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main contrib

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


def test_deb822_sources_are_read_and_disabled_ones_left_out() -> None:
    assert parse_deb822(DEB822) == [
        Source(
            "http://mirror.example/debian",
            ("bookworm", "bookworm-updates"),
            ("main",),
            "/usr/share/keyrings/debian-archive-keyring.gpg",
        ),
        Source("http://mirror.example/debian-security", ("bookworm-security",), ("main", "contrib")),
    ]


def test_deb822_lists_may_go_over_lines() -> None:
    text = "Types: deb\nURIs: http://a.example/debian\n http://b.example/debian\nSuites: bookworm\nComponents: main\n"
    assert [source.uri for source in parse_deb822(text)] == ["http://a.example/debian", "http://b.example/debian"]


def test_one_line_sources_are_read_without_comments_and_sources() -> None:
    text = (
        "# deb http://old.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # ours\n"
        "deb-src http://mirror.example/debian bookworm main\n"
    )
    assert parse_one_line(text) == [
        Source("http://mirror.example/debian", ("bookworm",), ("main", "contrib"), "/k.gpg")
    ]


def test_the_machines_mirrors_serve_any_supported_release() -> None:
    assert mirror_lines(parse_deb822(DEB822), 13) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


def test_other_components_are_asked_of_the_same_mirrors() -> None:
    assert mirror_lines(parse_deb822(DEB822), 12, ("main", "non-free")) == [
        "deb http://mirror.example/debian bookworm main non-free",
        "deb http://mirror.example/debian bookworm-updates main non-free",
        "deb http://mirror.example/debian-security bookworm-security main non-free",
    ]


def test_other_projects_are_not_taken_for_debian() -> None:
    sources = [
        Source("https://tools.example/apt", ("bookworm",), ("main",), "/usr/share/keyrings/tools.gpg"),
        Source("https://pkg.example/linux", ("bookworm",), ("stable",)),
        Source("https://cloud.example/apt", ("sdk-bookworm",), ("main",)),
    ]
    assert mirror_lines(sources, 12) == []


def test_without_a_debian_archive_mmdebstraps_default_is_used() -> None:
    assert mirror_lines([Source("http://ports.example/ubuntu", ("noble",), ("main",))], 12) == []
    assert mirror_lines([Source("http://x.example/debian-security", ("bookworm-security",), ("main",))], 12) == []


def test_all_files_of_a_machine_are_read(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/debian bookworm main\n")
    (parts / "two.list").write_text("deb http://two.example/debian bookworm main\n")
    (parts / "three.sources").write_text(DEB822)
    hosts = [source.uri.split("/")[2] for source in machine_sources(tmp_path)]
    assert hosts == ["one.example", "two.example", "mirror.example", "mirror.example"]


def test_only_options_about_the_way_to_mirrors_are_taken() -> None:
    dump = (
        'APT::Architecture "amd64";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::Check-Date "false";\nDPkg::Post-Invoke:: "rm -rf /x";\nAcquire::https::CaInfo "";\n'
    )
    assert parse_options(dump) == ['Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Date "false";']
