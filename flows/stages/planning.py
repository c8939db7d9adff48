"""Planning: what a removal would do and cost, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from oubli.flows.job.plan import Plan, plan
from oubli.flows.job.request import resolve_request
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings


def plan_removal(settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig) -> Plan:
    """The plan of a removal. Takes, and raises, what `fetch` does."""
    return plan(resolve_request(settings, model, removals, config), config)
