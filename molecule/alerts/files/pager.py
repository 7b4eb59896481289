"""STAND-IN of a pager: writes down what Alertmanager sends, one line of JSON for each alert."""

import http.server
import json
import pathlib
import time

PAGES = pathlib.Path("/run/pages")


class Pager(http.server.BaseHTTPRequestHandler):
    """Takes every message."""

    def do_POST(self) -> None:
        """Write the alerts down."""
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with PAGES.open("a", encoding="utf-8") as pages:
            for alert in sent["alerts"]:
                page = {"at": time.time(), "path": self.path, "status": alert["status"], **alert["labels"]}
                page["token"] = self.headers.get("Authorization", "")
                pages.write(json.dumps(page) + "\n")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


http.server.ThreadingHTTPServer(("127.0.0.1", 9099), Pager).serve_forever()
