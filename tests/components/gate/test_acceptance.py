from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.gate.acceptance import AcceptanceStatistics, acceptance_statistics
from oubli.components.gate.ranks import OnBoth, margin_rank
from oubli.components.model.losses import Loss


def logits(*shares: float) -> Tensor:
    """(b, 2): logits of two classes whose first has these probabilities."""
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in shares], dtype=torch.float64)


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def both(removed: tuple[float, ...], held_out: tuple[float, ...]) -> OnBoth:
    return OnBoth(logits(*removed), logits(*held_out))


def statistics(**changed: OnBoth) -> AcceptanceStatistics:
    given = {
        "judge": both((0.5,), (0.5, 0.8)),
        "witness": both((0.6,), (0.4, 0.8)),
        "updated": both((0.7,), (0.5, 0.6)),
        "original": both((0.9,), (0.7, 0.8)),
        "labels": OnBoth(torch.tensor([0]), torch.tensor([0, 1])),
    }
    return acceptance_statistics(Loss.CROSS_ENTROPY, **(given | changed))


def test_the_statistics_by_hand():
    found = statistics()
    # On V, one of the two samples agrees in each of the three pairs, so that the mean is half of the other's.
    witnessed = kl(0.5, 0.6) / (kl(0.5, 0.4) / 2)
    assert found.disagreement == pytest.approx(kl(0.5, 0.7) / (kl(0.8, 0.6) / 2) / witnessed)
    assert found.original_disagreement == pytest.approx(kl(0.5, 0.9) / (kl(0.5, 0.7) / 2) / witnessed)
    assert found.left == pytest.approx(kl(0.5, 0.7) / kl(0.5, 0.9))
    assert found.drift == pytest.approx(kl(0.8, 0.6) / kl(0.5, 0.7))
    # Under f, u has the margin ln(.7/.3); the held-out ones 0, and -ln(.6/.4) for its second class: both are below.
    assert found.updated.rank == 1.0
    # Of the four pairs (sample, class), margins 0, 0, ln(.6/.4) and its negative: all are below.
    assert found.updated.rank_over_classes == 1.0
    # All predict the first class of u: as labelled. On V f is right on the first (a tie) and not on the second.
    assert (found.updated.as_labelled, found.updated.accuracy) == (1.0, 0.5)
    assert found.updated.loss_removed == pytest.approx(-math.log(0.7))
    assert found.updated.loss_held_out == pytest.approx(-(math.log(0.5) + math.log(0.4)) / 2)
    assert (found.judge.divergence_removed, found.judge.excess_divergence) == (0.0, 0.0)
    assert (found.removed, found.held_out, found.chance) == (1, 2, 1.0)


def test_the_excess_divergence_by_hand():
    """Two held-out samples are the neighbours of every one: their mean goes off, their own spread is the unit."""
    found = statistics()
    on_held_out = torch.tensor([0.0, kl(0.8, 0.6)], dtype=torch.float64)
    expected = (kl(0.5, 0.7) - on_held_out.mean()) / on_held_out.std(correction=0)
    assert found.updated.excess_divergence == pytest.approx(float(expected))


def test_little_is_not_made_of_next_to_nothing():
    """A judge that says the same as the original on V: a thousandth of a nat more is not infinitely much."""
    same = (0.5, 0.8)
    found = statistics(judge=both((0.52,), same), original=both((0.5,), same), updated=both((0.5,), same))
    assert found.updated.excess_divergence == pytest.approx(kl(0.52, 0.5) / 0.02)
    assert found.drift == 0
    moved = statistics(judge=both((0.5,), same), original=both((0.5,), same), updated=both((0.5,), (0.55, 0.8)))
    assert moved.drift == pytest.approx(kl(0.5, 0.55) / 2 / 0.02)


def test_a_sample_is_held_against_those_of_which_the_judge_is_as_certain():
    """Among forty held-out samples, thirty are uncertain, as the removed one is; ten are certain, and diverge more."""
    uncertain, certain = (0.55,) * 30, (0.95,) * 10
    given = {
        "judge": both((0.55,), uncertain + certain),
        "witness": both((0.55,), uncertain + certain),
        "updated": both((0.8,), (0.7,) * 30 + (0.5,) * 10),
        "original": both((0.9,), uncertain + certain),
        "labels": OnBoth(torch.tensor([0]), torch.zeros(40, dtype=torch.int64)),
    }
    excess = acceptance_statistics(Loss.CROSS_ENTROPY, **given).updated.excess_divergence
    apart = torch.tensor([kl(0.55, 0.7)] * 30 + [kl(0.95, 0.5)] * 10, dtype=torch.float64)
    # The ten certain ones have twenty uncertain neighbours.
    near = torch.tensor([kl(0.55, 0.7)] * 30 + [(10 * kl(0.95, 0.5) + 20 * kl(0.55, 0.7)) / 30] * 10)
    assert excess == pytest.approx((kl(0.55, 0.8) - kl(0.55, 0.7)) / float((apart - near).std(correction=0)), rel=1e-6)


def test_labels_known_in_excess_by_hand():
    """f is right on both removed samples and three of four held-out ones; the auditors on none and one, and two."""
    given = {
        "updated": both((0.9, 0.9), (0.9, 0.9, 0.9, 0.1)),
        "original": both((0.9, 0.1), (0.9, 0.9, 0.1, 0.1)),
        "judge": both((0.1, 0.1), (0.9, 0.9, 0.1, 0.1)),
        "witness": both((0.1, 0.9), (0.9, 0.2, 0.8, 0.1)),
        "labels": OnBoth(torch.tensor([0, 0]), torch.tensor([0, 0, 0, 0])),
    }
    found = acceptance_statistics(Loss.CROSS_ENTROPY, **given)
    assert found.excess_as_labelled(found.updated) == pytest.approx((1 - 0.25) - (0.75 - 0.5))
    assert found.excess_as_labelled(found.original) == pytest.approx((0.5 - 0.25) - 0)
    # f less the auditors' mean: 0, 1/2, 1/2, 0.
    assert found.as_labelled_spread == pytest.approx(0.25)
    assert found.accuracy is not None
    assert (found.accuracy.first, found.accuracy.second) == (0.5, 0.75)
    # Only rows that count.
    counted = torch.tensor([False, False, True, False])
    some = acceptance_statistics(Loss.CROSS_ENTROPY, **given, counted=counted)
    assert some.accuracy is not None
    assert (some.accuracy.n, some.accuracy.first, some.accuracy.second) == (1, 0.0, 1.0)
    none = acceptance_statistics(Loss.CROSS_ENTROPY, **given, counted=torch.zeros(4, dtype=torch.bool))
    assert none.accuracy is None


def test_a_retrained_judge_needs_no_witness_and_is_what_accuracy_falls_from():
    given = {
        "updated": both((0.9,), (0.9, 0.1)),
        "original": both((0.9,), (0.9, 0.9)),
        "judge": both((0.1,), (0.1, 0.9)),
        "labels": OnBoth(torch.tensor([0]), torch.tensor([0, 0])),
    }
    found = acceptance_statistics(Loss.CROSS_ENTROPY, witness=None, **given)
    assert found.witness is None
    assert found.disagreement is None
    assert found.excess_as_labelled(found.updated) == pytest.approx((1 - 0) - (0.5 - 0.5))
    assert found.accuracy is not None
    assert (found.accuracy.first, found.accuracy.second) == (0.5, 0.5)


def test_squared_errors_have_no_labels_to_know_and_rank_by_their_loss():
    held_out = torch.tensor([[0.0], [1.0], [4.0]])
    given = {
        "updated": OnBoth(torch.tensor([[2.0]]), held_out + 1),
        "original": OnBoth(torch.tensor([[3.0]]), held_out),
        "judge": OnBoth(torch.tensor([[0.0]]), held_out + torch.tensor([[0.0], [1.0], [2.0]])),
        "witness": OnBoth(torch.tensor([[0.5]]), held_out - 1),
        "labels": OnBoth(torch.tensor([[2.0]]), held_out),
    }
    found = acceptance_statistics(Loss.MSE, **given)
    assert (found.updated.as_labelled, found.updated.rank_over_classes, found.accuracy) == (None, None, None)
    assert found.excess_as_labelled(found.updated) is None
    # f's error on u is 0, below 1 on all held-out samples: it ranks highest.
    assert (found.updated.rank, found.updated.loss_removed, found.updated.loss_held_out) == (1.0, 0.0, 1.0)
    # In units of the original's variance on V; u: 4 s / 2; V: 1 s / 2, 0, and 1 s / 2.
    assert found.updated.excess_divergence == pytest.approx((4 - 2 / 3) / math.sqrt(2 / 9))


def test_the_witness_sets_the_scale():
    assert statistics(updated=both((0.6,), (0.4, 0.8))).disagreement == pytest.approx(1.0)


def test_a_rank_over_classes_takes_every_class_for_the_label():
    shares = {"judge": ((0.9, 0.2), (0.7, 0.4, 0.1)), "updated": ((0.8, 0.3), (0.55, 0.6, 0.35))}
    margins = {
        name: OnBoth(*(torch.tensor([math.log(p / (1 - p)) for p in one]) for one in pair))
        for name, pair in shares.items()
    }
    every = {name: OnBoth(one.removed, torch.cat([one.held_out, -one.held_out])) for name, one in margins.items()}
    labels = OnBoth(torch.tensor([0, 0]), torch.tensor([0, 1, 1]))
    found = acceptance_statistics(
        Loss.CROSS_ENTROPY,
        judge=both(*shares["judge"]),
        updated=both(*shares["updated"]),
        witness=both((0.5, 0.5), (0.6, 0.5, 0.5)),
        original=both((0.5, 0.5), (0.6, 0.5, 0.5)),
        labels=labels,
    )
    assert found.updated.rank_over_classes == pytest.approx(margin_rank(every["judge"], every["updated"], 30))


def test_labels_of_their_own_are_judged_as_two_classes():
    # One logit z of a label of its own is two classes with logits (0, z).
    removed, held_out = torch.tensor([[0.3], [-1.0]]), torch.tensor([[0.5], [2.0], [-0.7]])

    def outputs(shift: float, factor: float) -> OnBoth:
        return OnBoth(factor * removed + shift, factor * held_out + shift * torch.tensor([[1.0], [-1.0], [2.0]]))

    labels = OnBoth(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0], [0.0]]))
    given = {
        "judge": outputs(0.1, 1.0),
        "witness": outputs(0.4, 0.8),
        "updated": outputs(-0.3, 1.2),
        "original": outputs(-0.5, 3.0),
    }
    found = acceptance_statistics(Loss.BCE_WITH_LOGITS, labels=labels, **given)
    pairs = {
        name: OnBoth(*(torch.cat([torch.zeros_like(z), z], 1) for z in (one.removed, one.held_out)))
        for name, one in given.items()
    }
    classes = OnBoth(labels.removed[:, 0].long(), labels.held_out[:, 0].long())
    other = acceptance_statistics(Loss.CROSS_ENTROPY, labels=classes, **pairs)
    for name in ("updated", "original", "judge", "witness"):
        for figure, value in vars(getattr(other, name)).items():
            assert getattr(getattr(found, name), figure) == pytest.approx(value), (name, figure)
    assert found.as_labelled_spread == pytest.approx(other.as_labelled_spread)
    assert found.accuracy == other.accuracy


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ConfigurationError, match="2 removed and 2 held-out"):
        statistics(witness=both((0.5, 0.5), (0.5, 0.5)))
    with pytest.raises(NonFiniteInput):
        statistics(updated=OnBoth(torch.full((1, 2), torch.nan), logits(0.5, 0.5)))
