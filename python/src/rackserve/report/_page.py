"""Lays a report out as one HTML page that needs nothing else: no script, no request, everything escaped."""

from __future__ import annotations

import datetime as dt
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import jinja2
from markupsafe import Markup

from rackserve import capacity
from rackserve.bench import Pattern
from rackserve.report._file import MARK
from rackserve.report._plots import plots_of
from rackserve.report._scrub import scrub
from rackserve.run import by_role

if TYPE_CHECKING:
    from rackserve.bench import BenchResult, Distribution
    from rackserve.report._types import BundleFacts, CapacityFacts, RunFacts, SiteReport

_WORDS: Final = {True: "good", False: "bad", None: "none"}
_FEW: Final = 100


def render(report: SiteReport, made: dt.datetime) -> str:
    """Return the page; the same report gives the same page, its date aside."""
    folder = resources.files("rackserve") / "data"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    text = template.render(
        mark=Markup(MARK),  # noqa: S704 - our own constant
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        report=report,
        made=made.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        verdict=_WORDS[report.ok],
        summary=summary_of(report),
        failed=[check for check in report.checks if not check.ok],
        by_host=_by_host(report),
        matrix=_matrix(report.run) if report.run else None,
        capacity=[_capacity(one) for one in report.capacity],
        bench=_bench(report.bench) if report.bench else None,
    )
    return scrub(text, report.secrets)


def summary_of(report: SiteReport) -> list[dict[str, str]]:
    """Return the lines at the top: each part, its result, and a short description."""
    said = {
        "verify": _checks_line(report),
        "doctor": _doctor_line(report),
        "run": _run_line(report.run),
        "bundle": _bundle_line(report.bundle),
        "capacity": _capacity_line(report),
        "bench": _bench_line(report),
    }
    titles = {
        "verify": "Checks",
        "doctor": "Diagnosis",
        "run": "What changed",
        "bundle": "Bundle",
        "capacity": "Capacity",
        "bench": "Latency",
    }
    return [
        {"anchor": name, "title": titles[name], "kind": _WORDS[verdict], "text": said[name]}
        for name, verdict in report.verdicts.items()
    ]


def _checks_line(report: SiteReport) -> str:
    failed = sum(not check.ok for check in report.checks)
    return f"{failed} of {len(report.checks)} failed" if failed else f"all {len(report.checks)} passed"


def _doctor_line(report: SiteReport) -> str:
    if not report.examined:
        return "no host could be checked"
    return f"{len(report.findings) or 'nothing'} found on {_hosts(report.examined)}"


def _bundle_line(bundle: BundleFacts) -> str:
    if bundle.problem:
        return "cannot be used"
    return f"{bundle.name} version {bundle.version}, signed by {bundle.signer}"


def _run_line(run: RunFacts | None) -> str:
    if run is None:
        return "none on record"
    what = "would change" if run.check else "changed"
    return f"{'ended well' if run.ok else 'failed'}, {run.changed} tasks {what} {_hosts(len(run.hosts))}"


def _capacity_line(report: SiteReport) -> str:
    plans = [(one, one.plan) for one in report.capacity if one.plan]
    if not plans:
        return "not known"
    tokens = sum(len(one.where) * plan.capacity.tokens for one, plan in plans)
    count = sum(len(one.where) for one, _ in plans)
    return f"{tokens:,} tokens of KV cache in {count} instance{'s' if count != 1 else ''}"


def _bench_line(report: SiteReport) -> str:
    result = report.bench
    if result is None:
        return "failed" if report.bench_problem else "not measured"
    first, best = result.levels[0], max(result.levels, key=lambda level: level.output_tokens_per_s)
    if not first.ttft_ms:
        return "no whole answer"
    unit = "at once" if result.load.pattern is Pattern.CLOSED else "a second"
    return (
        f"first token after {first.ttft_ms.p50:,.0f} ms (p50, {first.load:g} {unit}); up to "
        f"{best.output_tokens_per_s:,.0f} tokens/s ({best.load:g} {unit})"
    )


def _hosts(count: int) -> str:
    return f"{count} host{'s' if count != 1 else ''}"


def _by_host(report: SiteReport) -> list[dict[str, Any]]:
    names = dict.fromkeys(check.host for check in report.checks)
    return [{"host": name, "checks": [check for check in report.checks if check.host == name]} for name in names]


def _matrix(run: RunFacts) -> dict[str, Any]:
    hosts = [host.name for host in run.hosts]
    rows = [
        {"role": role, "counts": [counts.get(host, 0) for host in hosts]}
        for role, counts in by_role(run.changes).items()
    ]
    minutes, seconds = divmod(run.seconds, 60)
    return {"hosts": hosts, "rows": rows, "took": f"{minutes} min {seconds} s" if minutes else f"{seconds} s"}


def _capacity(one: CapacityFacts) -> dict[str, Any]:
    if one.plan is None:
        return {"where": one.where, "problem": one.problem}
    plan, none = one.plan, "no KV cache: an encoder keeps nothing"
    return {
        "where": one.where,
        "problem": "",
        "picture": Markup(capacity.svg(plan)),  # noqa: S704 - it escapes what it is given
        "rows": [(part.name, f"{part.size / capacity.GIB:.2f} GiB", part.how) for part in capacity.parts_of(plan)],
        "facts": [
            ("starts", "yes" if plan.fits else "no: one request of max_model_len does not fit"),
            ("tokens in the KV cache", f"{plan.capacity.tokens:,}" if plan.shape.kv_layers else none),
            ("longest request (max_model_len)", f"{plan.settings.max_model_len:,} tokens"),
            ("such requests at once", f"{plan.capacity.max_concurrency:.2f}" if plan.shape.kv_layers else none),
            ("requests at once (max_num_seqs)", f"{plan.settings.max_num_seqs:,}"),
            ("how sure", "predicted" if plan.budget.predicted else "exact: the cache's size is set"),
        ],
    }


def _bench(result: BenchResult) -> dict[str, Any]:
    rows = []
    for level in result.levels:
        times = (
            ("time to first token", level.ttft_ms),
            ("between tokens", level.itl_ms),
            ("per output token", level.tpot_ms),
            ("end to end", level.e2e_ms),
        )
        errors = ", ".join(f"{count} x {what}" for what, count in level.errors.items())
        rows.append(
            {
                "level": level,
                "load": f"{level.load:g}",
                "times": [(name, _cells(found)) for name, found in times],
                "errors": errors,
            }
        )
    return {
        "result": result,
        "plots": plots_of(result),
        "rows": rows,
        "few": any(level.answered < _FEW for level in result.levels),
        "uncounted": any(not level.tokens_counted_by_engine for level in result.levels),
    }


def _cells(found: Distribution | None) -> list[str]:
    if found is None:
        return ["-"] * 6
    return [*(f"{value:,.1f}" for value in (found.min, found.p50, found.p95, found.p99, found.max)), f"{found.n:,}"]
