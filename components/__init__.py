"""The numeric core: tensors in, tensors out. No I/O, no environment, no global seeds.

The names below are its public face, and load when they are first used: importing `oubli.components` or its errors costs
no import of torch. `oubli.components.errors` is public as well; every other module is internal, and may change.
README.md beside this file shows a removal in a few lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oubli.components.blocks.blanket import BlanketPlan
    from oubli.components.blocks.block_choice import BlockChoice
    from oubli.components.blocks.choosing import select_block
    from oubli.components.blocks.perturbation import GaussianPerturbation, TokenPerturbation, TokenVocabulary
    from oubli.components.blocks.union import UnionRule
    from oubli.components.curvature.curvature_kind import CurvatureKind
    from oubli.components.curvature.kinds import curvature_builder
    from oubli.components.curvature.snapshots.taking import take_snapshot
    from oubli.components.gate.evidence import Beside, UpdateEvidence, Utility
    from oubli.components.gate.limits import GateLimits
    from oubli.components.gate.verdict import judge
    from oubli.components.lfoci.codec import codec, l_codec
    from oubli.components.lfoci.foci import l_foci, l_foci_many
    from oubli.components.measures.evaluation import evaluate
    from oubli.components.measures.measurement import Measurement, measure
    from oubli.components.model.frozen_head import frozen_head
    from oubli.components.model.gradients import RemovedGradient
    from oubli.components.model.losses import cross_entropy, loss_function
    from oubli.components.model.objective import Objective
    from oubli.components.model.samples import Samples, SampleSource
    from oubli.components.removal.damping import Fixed, Least, Undamped
    from oubli.components.removal.from_snapshot import removal_from_snapshot
    from oubli.components.removal.newton import NewtonPlan, newton_removal

__all__ = [
    "Beside",
    "BlanketPlan",
    "BlockChoice",
    "CurvatureKind",
    "Fixed",
    "GateLimits",
    "GaussianPerturbation",
    "Least",
    "Measurement",
    "NewtonPlan",
    "Objective",
    "RemovedGradient",
    "SampleSource",
    "Samples",
    "TokenPerturbation",
    "TokenVocabulary",
    "Undamped",
    "UnionRule",
    "UpdateEvidence",
    "Utility",
    "codec",
    "cross_entropy",
    "curvature_builder",
    "evaluate",
    "frozen_head",
    "judge",
    "l_codec",
    "l_foci",
    "l_foci_many",
    "loss_function",
    "measure",
    "newton_removal",
    "removal_from_snapshot",
    "select_block",
    "take_snapshot",
]

if not TYPE_CHECKING:
    _HOMES = {
        "blocks.blanket": ("BlanketPlan",),
        "blocks.block_choice": ("BlockChoice",),
        "blocks.choosing": ("select_block",),
        "blocks.perturbation": ("GaussianPerturbation", "TokenPerturbation", "TokenVocabulary"),
        "blocks.union": ("UnionRule",),
        "curvature.curvature_kind": ("CurvatureKind",),
        "curvature.kinds": ("curvature_builder",),
        "curvature.snapshots.taking": ("take_snapshot",),
        "gate.evidence": ("Beside", "UpdateEvidence", "Utility"),
        "gate.limits": ("GateLimits",),
        "gate.verdict": ("judge",),
        "lfoci.codec": ("codec", "l_codec"),
        "lfoci.foci": ("l_foci", "l_foci_many"),
        "measures.evaluation": ("evaluate",),
        "measures.measurement": ("Measurement", "measure"),
        "model.frozen_head": ("frozen_head",),
        "model.gradients": ("RemovedGradient",),
        "model.losses": ("cross_entropy", "loss_function"),
        "model.objective": ("Objective",),
        "model.samples": ("SampleSource", "Samples"),
        "removal.damping": ("Fixed", "Least", "Undamped"),
        "removal.from_snapshot": ("removal_from_snapshot",),
        "removal.newton": ("NewtonPlan", "newton_removal"),
    }
    _HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

    def __getattr__(name):
        """A public name, imported on its first use."""
        from importlib import import_module

        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted(__all__)
