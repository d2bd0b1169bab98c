"""A pytest plugin: the checks of tests/templates see a rendering that one mutation has changed.

With a few of the combinations, in which each choice is made in dev and in prod, and on a swarm each
way to meet: what changes in all of them shows in these.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from .checks import NOT_APPLIED
from .mutation import Access, DoesNotApply, Mutation, load

if TYPE_CHECKING:
    from collections.abc import Callable

STEP, SWARM_STEP = 13, 5
SECRET = "this-stands-for-a-secret"  # noqa: S105
WAITING = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the mutation's name."""
    parser.addoption("--mutation", default="", help="the mutation to render with; none by default")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Put the mutation between the rendering and the checks."""
    # Only here: as a conftest, pytest has to import it first.
    from tests.templates import conftest

    waiting = session.config.stash[WAITING] = []
    conftest.COMBINATIONS = conftest.COMBINATIONS[::STEP]
    conftest.SWARM_COMBINATIONS = conftest.SWARM_COMBINATIONS[::SWARM_STEP]
    name = session.config.getoption("--mutation")
    if name:
        (mutation,) = (each for each in load() if each.name == name)
        waiting += mutation.rendered
        conftest.Renderer.render = _mutated(conftest.Renderer.render, mutation, waiting)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Refuse to have looked at a rendering that nothing changed."""
    if session.config.stash[WAITING]:
        pytest.exit(
            f"applies in no combination: {session.config.stash[WAITING]}", returncode=NOT_APPLIED
        )


def _mutated(
    render: Callable[..., Any], mutation: Mutation, waiting: list[Any]
) -> Callable[..., Any]:
    def mutated(self: object, combination: object) -> Any:
        stack = render(self, combination)
        for change in mutation.rendered:
            if change.file not in stack.files:
                # A swarm's own, where each machine has its own stack.
                continue
            text, mode = stack.files[change.file]
            if isinstance(change, Access):
                mode = change.mode
            else:
                try:
                    text = re.sub(r"\{secret \w+\}", SECRET, change.applied(text))
                except DoesNotApply:
                    # Such as an address, in a combination with another.
                    continue
            stack.files[change.file] = text, mode
            if change in waiting:
                waiting.remove(change)
        return stack

    return mutated
