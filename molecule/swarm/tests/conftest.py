"""The swarm of this scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controller import ROOT
from tests.swarm import Swarm


@pytest.fixture(scope="session")
def swarm(pytestconfig: pytest.Config) -> Swarm:
    """The swarm at hand."""
    inventory = Path(pytestconfig.getoption("--ansible-inventory")).resolve()
    return Swarm(inventory, ROOT / "molecule/swarm/inventory/one_manager.yml")
