"""The mutations still apply to what the templates render: one that does not breaks nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..mutation.mutation import Access, DoesNotApply, Mutation, load
from ..mutation.rendered import STEP, SWARM_STEP

if TYPE_CHECKING:
    from .conftest import Stack

RENDERED = [each for each in load() if each.rendered]


def applies(mutation: Mutation, stack: Stack) -> bool:
    """Tell whether some change of a mutation applies to a rendered stack."""
    for change in mutation.rendered:
        if change.file not in stack.files:
            continue
        try:
            if not isinstance(change, Access):
                change.applied(stack.files[change.file][0])
        except DoesNotApply:
            # Such as an address, in a combination with another.
            continue
        return True
    return False


@pytest.mark.parametrize("mutation", RENDERED, ids=lambda each: each.name)
def test_mutation_applies_to_some_combination(
    mutation: Mutation, rendered: list[Stack], rendered_swarms: list[Stack]
) -> None:
    stacks = [*rendered[::STEP], *rendered_swarms[::SWARM_STEP]]
    assert any(applies(mutation, stack) for stack in stacks), mutation.rendered
