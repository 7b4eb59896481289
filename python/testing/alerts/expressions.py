"""Which metrics a PromQL expression asks for."""

from __future__ import annotations

import promql_parser


def metrics_of(expression: str) -> set[str]:
    """Return the names of the series that an expression selects.

    Raises:
        ValueError: It is no PromQL.
    """
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
