#!/usr/bin/python
"""Verify the certificate of the edge on this host as a client does that trusts the site's CA."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_handshake
short_description: Verify the edge's certificate for a server name
description:
  - Opens a TLS connection to the loopback address and verifies certificate chain, validity and server name with the
    given CA. Never changes anything.
options:
  port: {description: HTTPS port of the edge., type: int, required: true}
  server_name: {description: Server name that clients connect to., type: str, required: true}
  authority: {description: "Certificate of the CA, PEM text.", type: str, required: true}
author: rackserve
"""
EXAMPLES = r"""
- name: Verify the certificate
  edge_handshake: {port: 443, server_name: llm.example, authority: "{{ lookup('ansible.builtin.file', 'ca.crt') }}"}
"""

import socket
import ssl

from ansible.module_utils.basic import AnsibleModule

_TIMEOUT_S = 10.0


def handshake_problem(port: int, server_name: str, authority: str) -> str:
    """Connect to the loopback address; return an empty string when the certificate is valid, else the reason."""
    try:
        context = ssl.create_default_context(cadata=authority)
        with (
            socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=server_name),
        ):
            return ""
    except (OSError, ValueError) as failed:  # ssl.SSLError is an OSError; a text without a certificate may be either
        return str(failed)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "required": True},
            "server_name": {"type": "str", "required": True},
            "authority": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    problem = handshake_problem(params["port"], params["server_name"], params["authority"])
    if problem:
        module.fail_json(
            msg=f"the edge's certificate at 127.0.0.1:{params['port']} is not valid for {params['server_name']} with "
            f"the CA nginx_ca_src: {problem}; set nginx_tls_certificate_src to a certificate that this CA signed for "
            "stack_server_name, or nginx_ca_src to the CA that signed it"
        )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
