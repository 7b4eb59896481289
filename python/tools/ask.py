"""Ask the lab's fleet one question over TLS and print the answer as it comes."""

from __future__ import annotations

import os
import ssl
import sys

import httpx
from openai import OpenAI

from rackserve import lab

NAME = "rackserve.lab"


def main() -> int:
    """Stream the answer to the question on the command line."""
    name = os.environ.get("RACKSERVE_LAB", "demo")
    address = next(host.address for host in lab.status(name).hosts if host.name == "edge1")
    pki = lab.lab_dir(name) / "pki"
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    key = (pki / "client.key").read_text(encoding="utf-8").strip()
    transport = httpx.HTTPTransport(verify=context)

    def by_name(request: httpx.Request) -> None:
        request.extensions = {**request.extensions, "sni_hostname": NAME}

    with httpx.Client(transport=transport, event_hooks={"request": [by_name]}, timeout=120) as http:
        # openai takes httpx too; its annotation names only httpx2.
        client = OpenAI(base_url=f"https://{address}/v1", api_key=key, http_client=http)  # type: ignore[arg-type]
        question = " ".join(sys.argv[1:])
        print(f"> {question}\n< ", end="")
        stream = client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=32, stream=True
        )
        for chunk in stream:
            print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
