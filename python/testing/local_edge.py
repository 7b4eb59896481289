"""An edge on the loopback: Debian's nginx with the role's template and code, and stand-ins for engines."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import yaml

from rackserve import edge
from rackserve.ansible.module_utils import rackserve_edge, rackserve_rotation
from rackserve.ansible.modules import edge_rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROLE: Final = Path(__file__).parents[2] / "roles/nginx"
WORKERS: Final = 4
# Paths that the template has, by what stands for them in a folder.
_PATHS: Final = {"/var/log/nginx": "log", "/run/nginx.pid": "nginx.pid"}
# One that generates and one that embeds.
INSTANCES: Final[Mapping[str, Mapping[str, Any]]] = {
    "gpu1:a": {"served_names": ["small"]},
    "gpu1:b": {"served_names": ["vectors"], "task": "embed"},
}
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on, below those that the kernel gives to clients meanwhile."""
    while True:
        port = random.randrange(15000, 32000)  # noqa: S311 - no secret
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


class Engine(http.server.BaseHTTPRequestHandler):
    """Reads a request, and answers as the test has it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.engines.seen.append(body)
        self.server.engines.answer(self, body)

    def tell(self, status: int, text: str, kind: str = "application/json") -> None:
        """Send a whole answer."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, pieces: list[tuple[float, str]]) -> None:
        """Stream pieces of text, each after so many seconds."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for seconds, text in [*pieces, (0, "")]:
            time.sleep(seconds)
            data = text.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def stream_until(self, ended: threading.Event) -> None:
        """Stream an event, and the last one when the test says so."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"data: a\n\n")
        self.wfile.flush()
        ended.wait(60)
        self.wfile.write(b"data: [DONE]\n\n")


def well(engine: Engine, _: bytes) -> None:
    """Answer as an engine that is well."""
    engine.tell(200, '{"ok": true}')


@dataclass
class Engines:
    """The stand-ins of an edge: what they have seen, and how they answer."""

    seen: list[bytes] = field(default_factory=list)
    answer: Callable[[Engine, bytes], None] = well


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, engines: Engines) -> None:
        super().__init__(("127.0.0.1", 0), Engine)
        self.engines = engines

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def error(self) -> dict[str, Any]:
        """The error, in OpenAI's shape."""
        found: dict[str, Any] = json.loads(self.text)["error"]
        assert set(found) == {"message", "type", "code", "param"}
        return found


@dataclass
class Edge:
    """A running nginx."""

    folder: Path
    port: int
    metrics_port: int
    engines: Engines
    process: subprocess.Popen[bytes]
    ports: Mapping[str, int]
    context: ssl.SSLContext = field(default_factory=ssl._create_unverified_context)  # noqa: SLF001 - who it is does not matter

    def connect(self) -> ssl.SSLSocket:
        """Open a connection, over which a test says what it likes."""
        return self.context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 30))

    def ask(
        self, path: str, body: object, *, key: str | None = "rsk-roomy", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and read its answer; a body that can be iterated over goes in chunks."""
        link = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=30)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        known = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            link.request("POST", path, data, {**known, **(headers or {})})  # type: ignore[arg-type]
            got = link.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read().decode())
        finally:
            link.close()

    def complete(self, **asked: object) -> Answer:
        """Ask for a completion."""
        return self.ask("/v1/completions", {"model": "small", **asked})

    def series(self) -> dict[str, float]:
        """Return what the edge tells Prometheus."""
        text = ""
        while not text:  # some kernels forget to wake a worker when another one is killed
            link = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=3)
            with contextlib.suppress(TimeoutError, ConnectionError), contextlib.closing(link):
                link.request("GET", "/metrics")
                text = link.getresponse().read().decode()
        rows = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name.removeprefix("rackserve_edge_"): float(value) for name, _, value in rows}

    def grown(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return the series that have other values than before."""
        return {
            name: value - before.get(name, 0) for name, value in self.series().items() if value != before.get(name, 0)
        }

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        return [json.loads(line) for line in (self.folder / "log/access.log").read_text().splitlines()]

    def workers(self) -> set[int]:
        """Return the IDs of the workers."""
        return {
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        }

    @property
    def places(self) -> rackserve_edge.Places:
        """Where the module edge_rotation finds this edge."""
        conf = str(self.folder / "nginx.conf")
        argv = (str(shutil.which("nginx")), "-p", str(self.folder), "-e", str(self.folder / "log/error.log"))
        return rackserve_edge.Places(str(self.folder / "rotation.json"), str(self.folder / "lock"), conf, argv)

    def rotate(self, weights: Mapping[str, int], *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Change the rotation as the module does."""
        params = {"set": dict(weights), "by": "operator", "run": "", "wait": 0, "force": False, **options}
        return edge_rotation.rotate(rackserve_edge.Edge(self.places), params, check=check)

    def reload(self) -> set[int]:
        """Have nginx read its configuration again; returns the workers from before."""
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(self.workers() - before) == WORKERS)
        return before


def wait_for(what: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so, and fail when it is not in time."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "in time"
        time.sleep(0.05)


def clients() -> list[dict[str, Any]]:
    """Describe a client with much room, and one with little."""
    hashes = {name: hashlib.sha256(f"rsk-{name}".encode()).hexdigest() for name in ("roomy", "tight")}
    tight = {"requests_per_minute": 60, "burst": 4, "concurrent": 3}
    roomy = {"requests_per_minute": 60000, "burst": 10000, "concurrent": 64}
    return [
        {"name": name, "keys": [{"sha256": hashes[name]}], **more}
        for name, more in (("roomy", roomy), ("tight", tight))
    ]


def _named(prefix: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}


def _template(folder: Path, names: Mapping[str, Any]) -> str:
    """Render the role's template with the values of its defaults, and paths of this folder."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    environment.filters |= {"to_json": json.dumps, "comment": "# {}".format, "bool": bool, "basename": os.path.basename}
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    own = {name: variables[name] for name in ("__nginx_errors", "__nginx_variables")}
    text = environment.from_string((ROLE / "templates/nginx.conf.j2").read_text(encoding="utf-8")).render(
        {**defaults, **own, "ansible_managed": "a test", **names}
    )
    for path, place in _PATHS.items():
        text = text.replace(path, str(folder / place))
    places = "\n".join(f"{name}_temp_path {folder / 'temporary' / name};" for name in _TEMPORARY)
    text = text.replace("http {\n", f"http {{\n{places}\n", 1)
    text = re.sub(r"^(\s+listen )(\d+)(?=[; ])", r"\g<1>127.0.0.1:\2", text, flags=re.MULTILINE)
    return text.replace("user www-data;", f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else "")


@contextlib.contextmanager
def running(
    folder: Path,
    pair: tuple[Path, Path],
    change: Callable[[str], str] = str,
    code: Path | None = None,
    instances: Mapping[str, Mapping[str, Any]] = INSTANCES,
    **given: Any,
) -> Iterator[Edge]:
    """Run an edge with instances behind it, all of them the same stand-in.

    Args:
        folder: where its files go.
        pair: its certificate and key.
        change: to the text of nginx.conf.
        code: folder of the Lua code, if not the role's.
        instances: by label, what nginx_backends says of them, without the place.
        given: variables of the role.
    """
    port, metrics_port, plain = (free_port() for _ in range(3))
    engines = Engines()
    servers = {label: _Server(engines) for label in instances}
    for name in ("log", "temporary"):
        (folder / name).mkdir()
    backends = [
        {
            **dict(zip(("host", "instance"), label.split(":"), strict=True)),
            "address": "127.0.0.1",
            "release": "0.32.0",
            "port": servers[label].server_port,
            **more,
        }
        for label, more in instances.items()
    ]
    optional = ["/v1/responses", "/v1/messages"]
    affinity, limits, hold = given.pop("affinity", None), _named("nginx_max_", given), _named("nginx_hold_", given)
    hold["seconds"] = hold.pop("timeout", 60)
    plan = edge.plan_of(backends, clients(), optional, affinity, limits=limits, hold=hold)
    (folder / "table.json").write_text(plan["table"], encoding="utf-8")
    upstreams = rackserve_rotation.upstreams_of(json.loads(plan["table"]), [])
    (folder / "upstreams.conf").write_text(upstreams, encoding="utf-8")
    names = {
        "__nginx_plan": plan,
        "__nginx_edge_folder": folder,
        "__nginx_code_folder": code or ROLE / "files",
        "__nginx_certificate": pair[0],
        "__nginx_key": pair[1],
        "stack_server_name": "localhost",
        "stack_https_port": port,
        "stack_edge_metrics_port": metrics_port,
        "nginx_http_port": plain,
        "nginx_limit_rate": 10000,
        "nginx_limit_burst": 10000,
        **given,
    }
    (folder / "nginx.conf").write_text(change(_template(folder, names)), encoding="utf-8")
    for server in servers.values():
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    argv = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    tested = subprocess.run([*argv, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        ports = {label: server.server_port for label, server in servers.items()}
        found = Edge(folder, port, metrics_port, engines, process, ports)
        wait_for(lambda: process.poll() is None and _listens(metrics_port))
        yield found
    finally:
        process.terminate()
        process.wait(30)
        for server in servers.values():
            server.shutdown()
            server.server_close()


def _listens(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0
