"""What `auto` and empty settings mean for a model: the one place where a removal's defaults are decided."""

from __future__ import annotations

from dataclasses import dataclass

from oubli.components.blocks.choosing import BlockChoice
from oubli.components.blocks.perturbation import GaussianPerturbation, Perturbation, TokenPerturbation, TokenVocabulary
from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.model.samples import SampleSource
from oubli.components.removal.damping import Damping, Fixed, Least, Undamped
from oubli.registry.removals.unlearn_config import AUTO, Order, SnapshotUse, UnlearnConfig, Way
from oubli.registry.training.training_record import TokensDecoder, TrainingRecord

# One step on a network: further ones follow a gradient that training left, not the removal (components/README.md).
_CONVEX_STEPS, _NETWORK_STEPS = 2, 1


@dataclass(frozen=True)
class Choices:
    """A removal's settings with nothing left open."""

    config: UnlearnConfig
    record: TrainingRecord

    @property
    def selection(self) -> BlockChoice:
        """All parameters of a convex model, where the update is exact in the limit, and under matching; else the Markov
        blanket."""
        if self.config.selection == AUTO:
            whole = self.record.convex or self.config.method is Way.MATCHING
            return BlockChoice.FULL if whole else BlockChoice.L_FOCI
        return self.config.selection

    @property
    def curvature(self) -> CurvatureKind:
        """The generalised Gauss-Newton matrix: the Hessian of a convex model, and never indefinite on a network."""
        if self.config.curvature == AUTO:
            return CurvatureKind.GGN
        return self.config.curvature

    @property
    def steps(self) -> int:
        if self.config.use_snapshot is SnapshotUse.ALWAYS:
            return 1
        return self.config.steps or (_CONVEX_STEPS if self.record.convex else _NETWORK_STEPS)

    @property
    def to_minimiser(self) -> bool:
        """Whether steps go on to the minimiser of a convex model, rather than as the settings of single steps say."""
        config = self.config
        named = config.curvature != AUTO or config.curvature_samples is not None or config.steps is not None
        named = named or config.order is not Order.BATCH or bool(config.damping)
        return self.record.convex and self.record.l2 > 0 and not named and config.use_snapshot is not SnapshotUse.ALWAYS

    @property
    def may_use_snapshot(self) -> bool:
        """Whether a snapshot, where there is one, takes the place of a pass over the retained samples."""
        if self.config.use_snapshot is not SnapshotUse.AUTO:
            return self.config.use_snapshot is SnapshotUse.ALWAYS
        # A second step needs the gradient where the first one ended, which no snapshot knows.
        asked_otherwise = self.config.curvature != AUTO or self.config.curvature_samples is not None
        return self.steps == 1 and self.config.order is Order.BATCH and not asked_otherwise

    @property
    def needs_secant(self) -> bool:
        return self.curvature is CurvatureKind.FINITE_DIFFERENCE

    @property
    def perturbation(self) -> Perturbation:
        """Noise on images and numbers, other words in texts."""
        decoder = self.record.decoder
        if isinstance(decoder, TokensDecoder):
            vocabulary = TokenVocabulary(decoder.vocabulary, frozenset(decoder.special), decoder.padding)
            return TokenPerturbation(vocabulary, self.config.token_replacements)
        return GaussianPerturbation(self.config.perturbation_sigma)

    def damping(self, probe: SampleSource | None = None) -> Damping:
        """As configured; else none for a convex model, and for a network the least that its retained samples allow.

        Args:
            probe: Retained samples that a damping is judged by; None takes all.
        """
        if self.config.damping is not None:
            return Fixed(self.config.damping)
        return Undamped() if self.record.convex else Least(probe=probe)
