"""Every dashboard, in the order in which Grafana lists them."""

from __future__ import annotations

from typing import Final

from rackserve.dashboards._airgap import AIRGAP
from rackserve.dashboards._board import Board
from rackserve.dashboards._edge import EDGE
from rackserve.dashboards._fleet import FLEET
from rackserve.dashboards._gpu import GPU
from rackserve.dashboards._instance import INSTANCE

__all__ = ["BOARDS", "Board"]

BOARDS: Final = (FLEET, INSTANCE, GPU, EDGE, AIRGAP)
