"""What makes these checks quick, and their times no matter of what else the machine does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

hypothesis.settings.register_profile("unit", deadline=None, database=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture(scope="module", autouse=True)
def _disk_is_not_waited_for() -> Iterator[None]:
    """Leave out what only a crash of the machine would show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
