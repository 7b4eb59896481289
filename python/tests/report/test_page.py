"""The page: whole HTML, nothing from elsewhere, everything escaped, no secret, and the same for the same report."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from rackserve.checks import CheckResult
from rackserve.report import CapacityFacts, SiteReport, render
from rackserve.report._plots import nice_ceiling
from rackserve.report._scrub import HIDDEN, scrub
from testing.report_pages import bench, healthy, ill, plan

MADE = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)
VOID = {"meta", "link", "img", "br", "hr", "input", "base", "source", "embed"}
LOADING = {
    "src",
    "srcset",
    "href",
    "xlink:href",
    "action",
    "formaction",
    "poster",
    "data",
    "background",
    "ping",
    "cite",
}
HOSTILE = "<script>alert(1)</script>\"'><img src=http://elsewhere.example/x onerror=alert(1)>{{ 7 * 7 }}"


class Page(HTMLParser):
    """Reads a page and keeps what a browser would make of it."""

    def __init__(self, text: str, *, strict: bool = True) -> None:
        super().__init__()
        self.strict = strict
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.style = ""
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        closed = self.open.pop()
        assert closed == tag or not self.strict, f"</{tag}> closes <{closed}>"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def named(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


def asks_for(page: Page) -> list[str]:
    """Return everything in a page that would load or send something."""
    found = [
        f"{tag} {name}={value}"
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in LOADING and not value.startswith("#")
    ]
    found += [tag for tag, _ in page.tags if tag in {"script", "iframe", "object", "embed", "link", "base", "form"}]
    found += [f"{tag} {name}" for tag, attributes in page.tags for name in attributes if name.startswith("on")]
    found += [tag for tag, attributes in page.tags if tag == "meta" and attributes.get("http-equiv") == "refresh"]
    return found + re.findall(r"url\(|@import|@font-face|image-set", page.style)


@pytest.mark.parametrize("report", [healthy(), ill()], ids=["healthy", "ill"])
def test_it_loads_nothing(report: SiteReport) -> None:
    page = Page(render(report, MADE))
    assert page.open == []
    assert asks_for(page) == []
    policies = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline';")


@pytest.mark.parametrize(
    "control",
    [
        '<img src="http://127.0.0.1/x">',
        '<link rel="stylesheet" href="x.css">',
        "<script>1</script>",
        "<style>p{background:url(http://127.0.0.1/x)}</style>",
        '<p onclick="x()"></p>',
        '<meta http-equiv="refresh" content="0;url=x">',
    ],
)
def test_a_page_that_does_is_caught(control: str) -> None:
    text = render(healthy(), MADE).replace("<main>", f"<main>{control}")
    assert asks_for(Page(text, strict=False)) != []


def hostile(value: Any) -> Any:
    """Return a value with every text in it made hostile, keys of mappings too."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value).__name__ in {"Plan", "Load"}:
            return value
        return dataclasses.replace(
            value,
            **{
                field.name: hostile(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if field.name != "secrets"
            },
        )
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, tuple):
        return tuple(hostile(item) for item in value)
    if isinstance(value, Mapping):
        return {key if key == "rackserve" else hostile(key): hostile(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("report", [healthy(), ill()], ids=["healthy", "ill"])
def test_everything_is_text(report: SiteReport) -> None:
    text = render(hostile(report), MADE)
    page = Page(text)
    assert page.open == []
    assert asks_for(page) == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(render(report, MADE)).tags} | {"p", "td"}
    assert "<script" not in text
    assert "alert(1)" in page.text
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(\S*)", text)


def test_the_pictures_escape_too() -> None:
    report = dataclasses.replace(healthy(), bench=hostile(bench()))
    for plot in re.findall(r"<svg.*?</svg>", render(report, MADE), re.DOTALL):
        assert "<script" not in plot
        assert "<img" not in plot


def test_it_can_be_read_without_seeing_it() -> None:
    page = Page(render(ill(), MADE))
    assert [attributes for tag, attributes in page.tags if tag == "html"] == [{"lang": "en"}]
    assert len(page.named("table")) == len(page.named("caption")) > 6
    assert all(attributes.get("scope") for attributes in page.named("th"))
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in page.named("svg"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.named("a")} <= set(ids)
    assert "prefers-color-scheme: dark" in page.style
    assert "@media print" in page.style


def test_no_secret_is_on_it() -> None:
    canaries = ("rsk-canary-0123456789", "hf_canary0123456789", "hunter2", "pa55word", "c4n4ry", "MIIEcanary")
    detail = (
        'Authorization: Bearer rsk-canary-0123456789 "password": "hunter2" token=c4n4ry http://me:pa55word@host/ '
        "hf_canary0123456789 -----BEGIN OPENSSH PRIVATE KEY-----\nMIIEcanary\n-----END OPENSSH PRIVATE KEY-----"
    )
    plain = "a key of no known form"
    report = dataclasses.replace(
        hostile(ill()), checks=(CheckResult("c", "h", ok=False, detail=f"{detail} {plain}"),), secrets=(plain,)
    )
    text = render(report, MADE)
    assert [canary for canary in (*canaries, plain) if canary in text] == []
    assert HIDDEN in text
    control = dataclasses.replace(report, checks=(CheckResult("c", "h", ok=False, detail="plainly seen"),))
    assert "plainly seen" in render(control, MADE)


def test_prose_is_not_taken_for_a_secret() -> None:
    text = render(healthy(), MADE)
    assert HIDDEN not in text
    assert "Time to first token: from sending" in text
    assert scrub("max tokens: 64, no key") == "max tokens: 64, no key"


def test_the_same_report_gives_the_same_page() -> None:
    later = MADE + dt.timedelta(days=1)
    one, other = render(ill(), MADE), render(ill(), later)
    assert render(ill(), MADE) == one
    assert one.replace("2026-01-02 03:04 UTC", "2026-01-03 03:04 UTC") == other


@pytest.mark.parametrize(
    ("report", "ok", "bad"),
    [(healthy(), True, set()), (ill(), False, {"verify", "doctor", "run", "bench"})],
    ids=["healthy", "ill"],
)
def test_verdicts(report: SiteReport, ok: bool, bad: set[str]) -> None:  # noqa: FBT001 - a parameter of the test
    assert report.ok is ok
    assert {name for name, verdict in report.verdicts.items() if verdict is False} == bad
    assert ("All that was looked at is well" in render(report, MADE)) is ok


def test_what_was_not_looked_at_is_neither_good_nor_bad() -> None:
    report = dataclasses.replace(healthy(), run=None, bench=None, capacity=())
    assert report.ok
    assert [name for name, verdict in report.verdicts.items() if verdict is None] == ["run", "capacity", "bench"]
    text = render(report, MADE)
    assert "is on record on this controller" in text
    assert "rackserve report --bench" in text
    for change in ({"checks": ()}, {"examined": 0}, {"bench_problem": "nothing was measured"}):
        assert not dataclasses.replace(report, **change).ok


def test_an_encoder_is_shown_without_tokens_and_requests() -> None:
    shape = dataclasses.replace(plan().shape, kv_layers=())
    encoder = CapacityFacts(("gpu1:embed",), dataclasses.replace(plan(), shape=shape))
    text = render(dataclasses.replace(healthy(), capacity=(encoder,)), MADE)

    assert text.count("no KV cache: an encoder keeps nothing") == 2
    assert "no KV cache: an encoder keeps nothing" not in render(healthy(), MADE)


@pytest.mark.parametrize(
    ("value", "ceiling"), [(0, 1), (0.9, 1), (1, 1), (1.1, 1.2), (390, 400), (81, 100), (9000, 1e4)]
)
def test_axes_end_at_round_numbers(value: float, ceiling: float) -> None:
    assert nice_ceiling(value) == pytest.approx(ceiling)
