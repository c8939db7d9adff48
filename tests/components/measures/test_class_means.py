"""Which samples lie nearest to their own class's mean, counted by hand."""

from __future__ import annotations

import odd_losses
import torch
from torch import Tensor, nn

from oubli.components.measures.class_means import class_mean_accuracies
from oubli.components.measures.measurement import measure
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


def of(*points: tuple[float, float], labels: list[int]) -> Samples:
    return Samples(torch.tensor(points, dtype=torch.float64).reshape(-1, 2), torch.tensor(labels))


# Means: class 0 at (1, 0), class 5 at (0, 2).
KEPT = of((0.0, 0.0), (2.0, 0.0), (0.0, 1.0), (0.0, 3.0), labels=[0, 0, 5, 5])
TEST = of((1.0, 0.5), (0.0, 2.5), (0.0, 2.0), (3.0, 0.0), labels=[0, 5, 0, 7])


def plane(turn: Tensor | None = None, loss=odd_losses.margin) -> Objective:
    module = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.eye(2) if turn is None else turn)
    return Objective(module, loss, 0.0)


def accuracies(objective: Objective) -> dict[str, float]:
    return class_mean_accuracies(
        objective, objective.theta(), KEPT, {"forget": None, "retained": KEPT, "test": TEST, "none": of(labels=[])}
    )


def test_the_share_nearest_to_its_own_class() -> None:
    # Of the kept, (0, 0) is 1 from its own mean and 2 from the other's, (0, 1) is 1 and 1.41: all four are right.
    # Of the test samples the third lies on the other class's mean, and class 7 is not among the kept.
    assert accuracies(plane()) == {"retained": 1.0, "test": 0.5}


def test_turning_all_embeddings_changes_nothing() -> None:
    angle = torch.tensor(0.7)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    assert accuracies(plane(turn)) == accuracies(plane())


def test_a_loss_that_has_an_accuracy_needs_no_other() -> None:
    assert accuracies(plane(loss=cross_entropy)) == {}


def test_labels_that_are_no_classes_have_none() -> None:
    objective = plane()
    targets = Samples(KEPT.inputs, KEPT.inputs)
    assert class_mean_accuracies(objective, objective.theta(), targets, {"retained": targets}) == {}


def test_a_measurement_names_them() -> None:
    objective = plane(loss=odd_losses.curves_down)
    kept = of((0.0, 0.0), (2.0, 0.0), (0.0, 1.0), labels=[0, 0, 1])
    metrics = measure(objective, objective.theta(), kept.select(torch.tensor([0])), kept, kept).metrics("_parent")
    names = {name for name in metrics if "accuracy" in name}
    assert names == {f"{each}_class_mean_accuracy_parent" for each in ("forget", "retained", "test")}
