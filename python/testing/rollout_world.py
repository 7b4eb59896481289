"""A fleet that lives through a rollout's plan, step by step, and tells every request that it would lose."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackserve.rollout import How, parse_input, rollout_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rackserve.rollout import RolloutPlan

OUT = ("operator", "rollout")


def generation(digest: str = "01", name: str = "a") -> dict[str, Any]:
    """Return what a generation says of itself on its host."""
    return {
        "name": name,
        "digest": digest,
        "unit": f"vllm@{name}.{digest}.service",
        "task": "generate",
        "served_names": ["m"],
        "environment": "e",
        "probe": "p",
        "settings": "s",
        "visible": {},
        "config": {},
        "runtime": "/r",
        "engine": "/s",
    }


@dataclass
class Engine:
    """An instance: what is live, what the inventory wants."""

    host: str
    live: str | None
    wanted: str | None
    names: frozenset[str]
    wanted_names: frozenset[str]
    serves: bool = True
    way: str = "drain"
    entry: str = "same"
    start_s: float | None = 10
    moved: bool = False

    def switch(self) -> None:
        self.live, self.names, self.serves = self.wanted, self.wanted_names, self.wanted is not None
        self.moved, self.entry = self.moved or self.entry == "moves", "same"

    @property
    def right(self) -> bool:
        return self.live == self.wanted and self.entry == "same" and (self.serves or self.wanted is None)


@dataclass
class Edge:
    """A table of labels: names, and whether it has the entry's new address; and the flags of instances."""

    table: dict[str, tuple[frozenset[str], bool]] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)


@dataclass
class World:
    """The fleet; labels are `host:instance`."""

    engines: dict[str, Engine]
    edges: dict[str, Edge]
    hold_s: float = 0
    consent: str = ""
    steps: list[int | str] = field(default_factory=lambda: [1, "50%"])

    def plan(self) -> RolloutPlan:
        hosts: dict[str, list[dict[str, Any]]] = {}
        for label, engine in self.engines.items():
            state = {
                "name": label.partition(":")[2],
                "live": engine.live,
                "wanted": engine.wanted,
                "live_names": sorted(engine.names),
                "wanted_names": sorted(engine.wanted_names),
                "serves": engine.serves,
                "way": engine.way,
                "entry": engine.entry,
                "start_s": engine.start_s,
                "edges": {name: self._at(edge, label) for name, edge in self.edges.items()},
            }
            hosts.setdefault(engine.host, []).append(state)
        asked = {
            "run": "r2",
            "hosts": [{"name": host, "instances": instances} for host, instances in hosts.items()],
            "edges": list(self.edges),
            "steps": self.steps,
            "hold_s": self.hold_s,
            "consent": self.consent,
        }
        return rollout_plan(parse_input(asked))

    def _at(self, edge: Edge, label: str) -> dict[str, Any]:
        if label not in edge.table:
            return {"state": edge.flags.get(label, "absent"), "names": []}
        names, moved = edge.table[label]
        reaches = moved == self.engines[label].moved
        return {"state": edge.flags.get(label, "in"), "run": "r1", "names": sorted(names), "reaches": reaches}

    def answered(self, edge: Edge) -> frozenset[str]:
        """Return the wanted names for which an edge has an instance that answers."""
        wanted = self.wanted_names()
        found: set[str] = set()
        for label, (names, moved) in edge.table.items():
            engine = self.engines[label]
            if edge.flags.get(label) not in OUT and engine.serves and engine.moved == moved:
                found |= names & engine.names & wanted
        return frozenset(found)

    def misled(self) -> set[tuple[str, str, str]]:
        """Return the requests that get a 404 of an engine for a name that the fleet is to serve."""
        wanted = self.wanted_names()
        return {
            (name, label, served)
            for name, edge in self.edges.items()
            for label, (names, moved) in edge.table.items()
            for served in (names & wanted) - self.engines[label].names
            if edge.flags.get(label) not in OUT and self.engines[label].serves and self.engines[label].moved == moved
        }

    def wanted_names(self) -> frozenset[str]:
        return frozenset(name for engine in self.engines.values() if engine.wanted for name in engine.wanted_names)

    def execute(self, plan: RolloutPlan) -> Iterator[str]:
        """Do what a plan says; yields after every single change of an edge or an engine."""
        for label in plan.take_back:
            for edge in self.edges.values():
                if edge.flags.get(label) in ("rollout", "weight"):
                    del edge.flags[label]
                    yield f"take back {label}"
        yield from self._together(plan.first)
        if plan.edges_before:
            for edge in self.edges.values():
                self._configure(edge, {label: frozenset(names) for label, names in plan.names_before.items()})
                yield "edges before"
        for batch in plan.batches:
            rows = [row for row in plan.rows if row.host in batch]
            yield from self._batch(rows, plan.back_after_edges)
        wanted = {label: engine.wanted_names for label, engine in self.engines.items() if engine.wanted}
        for edge in self.edges.values():
            self._configure(edge, wanted)
            yield "edges"
            for label in plan.back_after_edges:
                if edge.flags.get(label) == "rollout":
                    del edge.flags[label]
                    yield f"back {label}"

    def _together(self, hosts: Iterable[str]) -> Iterator[str]:
        for label, engine in self.engines.items():
            if engine.host in hosts and not engine.right:
                engine.switch()
                yield f"first {label}"

    def _configure(self, edge: Edge, names: dict[str, frozenset[str]]) -> None:
        edge.table = {
            label: (routed, self.engines[label].moved or self.engines[label].entry == "moves")
            for label, routed in names.items()
        }
        edge.flags = {label: flag for label, flag in edge.flags.items() if flag == "operator" or label in edge.table}

    def _batch(self, rows: list[Any], late: list[str]) -> Iterator[str]:
        labels = [f"{row.host}:{row.instance}" for row in rows]
        drained = [label for label, row in zip(labels, rows, strict=True) if row.how is not How.BESIDE]
        for label in drained:
            for edge in self.edges.values():
                if label in edge.table and edge.flags.get(label) != "operator":
                    edge.flags[label] = "rollout"
                    yield f"drain {label}"
        for label, row in zip(labels, rows, strict=True):
            engine = self.engines[label]
            if label in drained and row.how is not How.PROVED:
                for edge in self.edges.values():
                    assert label not in edge.table or edge.flags.get(label) in OUT, f"{label} stops with requests"
                engine.serves = False
                yield f"stop {label}"
            engine.switch()
            yield f"switch {label}"
        for label in labels:
            if label not in late and self.engines[label].wanted:
                yield from self._give_back(label)

    def _give_back(self, label: str) -> Iterator[str]:
        for edge in self.edges.values():
            if label in edge.table and edge.flags.get(label) != "operator":
                edge.flags[label] = "weight"
                yield f"share {label}"
                del edge.flags[label]
                yield f"undrain {label}"

    def settled(self) -> bool:
        """Return whether all is as the inventory wants it, and only an operator has drained anything."""
        wanted = {label: engine.wanted_names for label, engine in self.engines.items() if engine.wanted}
        return all(engine.right for engine in self.engines.values()) and all(
            {label: names for label, (names, _) in edge.table.items()} == wanted
            and all(self.engines[label].moved == moved for label, (_, moved) in edge.table.items())
            and set(edge.flags.values()) <= {"operator"}
            for edge in self.edges.values()
        )


@dataclass(frozen=True)
class Lived:
    """The course of a rollout: what was lost when, and the fleet as it was after every step."""

    lost: list[str]
    moments: list[World]


def live(world: World, plan: RolloutPlan | None = None, *, keep: bool = False) -> Lived:
    """Live through a plan, the world's own by default. A name that is held, or given up by consent, is not missed."""
    plan = plan or world.plan()
    given_up = {name for problem in plan.problems for name in problem.names}
    all_given_up = any(not problem.names for problem in plan.problems)
    held = {name for label in plan.held for name in (world.engines[label].names | world.engines[label].wanted_names)}
    known = world.misled()
    promised = {name: set(world.answered(edge)) for name, edge in world.edges.items()}
    lost: list[str] = []
    moments: list[World] = []
    for step in world.execute(plan):
        for name, edge in world.edges.items():
            answered = world.answered(edge)
            lost += [
                f"{step}: no instance of {missing!r} at {name}"
                for missing in promised[name] - answered
                if missing not in given_up | held and not all_given_up
            ]
            promised[name] |= answered
        lost += [f"{step}: 404 {found}" for found in world.misled() - known if found[2] not in given_up]
        if keep:
            moments.append(copy.deepcopy(world))
    return Lived(lost, moments)
