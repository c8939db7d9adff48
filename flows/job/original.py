"""What the original model says: the model as it was trained, before any removal from it.

Axes: r retained samples, k held-out samples.

Removal by matching holds the model to the original's outputs on retained samples, however many removals lie between,
so that nothing accumulates. They come from the parent's table, or from the original's weights; where these are gone and
there is no table, the parent has to stand in, and the facts say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.state import output_table
from oubli.flows.job.facts import ORIGINAL_OUTPUTS, UPDATE_FACTS, Matched, Stage
from oubli.flows.job.materials import Materials, in_memory
from oubli.registry.models.original_outputs import OutputTable, load_outputs, read_outputs, store_outputs
from oubli.registry.training.held_out import keyed_choice

MOST_RETAINED = 20_000
"""Retained samples that outputs are kept of; matching draws some thousands of them at most."""


@dataclass(frozen=True)
class Original:
    """The original model's outputs.

    Attributes:
        source: Where they come from, in words.
        table: By sample id, in stored order.
        retained: The r retained samples of the table, as `Materials.objective` takes them.
    """

    source: str
    table: OutputTable
    retained: Samples = field(repr=False)


def original(materials: Materials) -> Original:
    """The original's outputs on held-out samples, and on retained ones that are drawn by the store's secret."""
    data = materials.data
    stored = _stored(materials)
    if stored is not None:
        source, ids = f"the table of version {materials.model.parent.version}", stored.retained_ids
    else:
        ids = data.retained.ids()
        chosen = keyed_choice(ids, MOST_RETAINED, materials.job.store_root, "original outputs")
        ids = tuple(sample for sample in ids if sample in chosen)
    retained = in_memory(materials.taken(data.those(frozenset(ids))))
    if stored is not None:
        return Original(source, stored, retained)
    source, objective, theta = _model(materials)
    outputs, held_out = (output_table(objective, theta, each) for each in (retained, materials.held_out))
    return Original(source, OutputTable(ids, outputs, data.held_out.ids(), held_out), retained)


def original_held_out(materials: Materials) -> Tensor:
    """The original's outputs (k, ...) on the held-out samples alone."""
    table = _made(materials) or _stored(materials)
    if table is not None:
        return table.held_out
    _source, objective, theta = _model(materials)
    return output_table(objective, theta, materials.held_out)


def outputs_tags(materials: Materials) -> dict[str, str]:
    """Put the table of the version that this removal makes on the store; the version tags that point to it.

    No tags where neither the parent has one nor the removal made one.
    """
    table = _made(materials)
    if table is None:
        inherited = load_outputs(materials.model.parent)
        table = None if inherited is None else inherited.without(materials.data.new_ids)
    return {} if table is None else store_outputs(materials.job.store_root, table)


def _made(materials: Materials) -> OutputTable | None:
    """The table that this removal's update wrote; None where it was not made by matching."""
    area = materials.job.area
    if not isinstance(area.require(Stage.UPDATE, UPDATE_FACTS).facts, Matched):
        return None
    with area.open(Stage.UPDATE, ORIGINAL_OUTPUTS) as path:
        return read_outputs(path)


def _stored(materials: Materials) -> OutputTable | None:
    """The parent's table without what is removed now; None where it has none that fits the held-out samples."""
    table = load_outputs(materials.model.parent)
    if table is None or table.held_out_ids != materials.data.held_out.ids():
        return None
    return table.without(materials.data.new_ids | frozenset(materials.data.earlier))


def _model(materials: Materials) -> tuple[str, Objective, Tensor]:
    """The model that says it, in words, as the objective with its buffers, and as its weights."""
    trained, origin = materials.as_trained, materials.account.origin
    if trained is None or origin is None:
        return "the parent, since the weights of the original are gone", materials.objective, materials.theta
    if materials.account.parent_is_origin:
        return "the parent, as it was trained", *trained
    return f"the weights of version {origin.version}", *trained
