"""Removal from a convex model, against retraining: how near the updated weights come.

Digits (scikit-learn's bundled handwritten digits, 1,437 training images), multinomial logistic regression, l2 = 1e-3,
float64, generalised Gauss-Newton on all 650 parameters. The bar: after two steps, ||w- - w_R|| / ||w* - w_R|| is at
most 1e-3 for m = 10, 50 and 100 removed samples. Exits with 1 where it is missed.

Distances are relative: 0 is as good as retraining, 1 as good as doing nothing. `no_l2` is one step with the L2 term
left out of the removed samples' gradient, for comparison.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.report import Case, print_json, print_table, wants_json
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.measures.evaluation import parameter_distance
from oubli.components.model.gradients import RemovedGradient, gradient_sum
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.reference.models import logistic_regression
from oubli.components.reference.training import fit_convex
from oubli.components.removal.damping import Undamped
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.update import RemovalUpdate
from oubli.components.solvers import prepare_system

L2 = 1e-3
BAR = 1e-3
REMOVED = (10, 50, 100)
TRAINING = 1437

ROWS = {
    "m": "removed samples m",
    "distance_1_step": "distance after 1 step",
    "distance_2_steps": "distance after 2 steps",
    "distance_1_step_no_l2": "distance after 1 step, no L2 term",
    "gradient_before": "retained gradient before",
    "gradient_after_1_step": "retained gradient after 1 step",
    "gradient_after_2_steps": "retained gradient after 2 steps",
    "update_seconds": "update, seconds",
    "retrain_seconds": "retraining, seconds",
    "met": "bar met",
}


def digits() -> Samples:
    """The training images as (1437, 64) float64 in 0 to 1, in a fixed random order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:TRAINING]
    return Samples(torch.tensor(data.data / 16.0)[order], torch.tensor(data.target)[order])


def trained(samples: Samples) -> nn.Module:
    return fit_convex(logistic_regression(64, 10).double(), samples, loss=cross_entropy, l2=L2)


def without_l2_term(objective: Objective, theta: Tensor, retained: Samples, removed: Samples) -> Tensor:
    """One step from the removed samples' loss gradients alone."""
    system = prepare_system(GaussNewton(Restriction(objective, theta, None), retained), theta.dtype)
    return theta + system.solve(gradient_sum(objective, theta, removed) / len(retained), L2).x


def cases() -> Iterator[Case]:
    samples = digits()
    objective = Objective(trained(samples), cross_entropy, L2)
    theta = objective.theta()

    def update(retained: Samples, removed: Samples, steps: int) -> RemovalUpdate:
        gradient = RemovedGradient.of(objective, theta, removed)
        return newton_removal(objective, theta, retained, gradient, NewtonPlan(steps, Undamped(), convex=True))

    # Warm-up, so that no case pays for first calls.
    update(samples.select(torch.arange(10, 60)), samples.select(torch.arange(10)), 2)

    for m in REMOVED:
        removed, retained = samples.select(torch.arange(m)), samples.select(torch.arange(m, TRAINING))
        started = time.perf_counter()
        model = trained(retained)
        retrain_seconds = time.perf_counter() - started
        retrained = objective.space.theta_of(model)

        started = time.perf_counter()
        found = update(retained, removed, 2)
        update_seconds = time.perf_counter() - started

        def distance(weights: Tensor, retrained: Tensor = retrained) -> float:
            return parameter_distance(weights, retrained, relative_to=theta)

        two_steps = distance(found.theta)
        first, second = found.steps
        yield {
            "benchmark": "convex",
            "m": m,
            "n": TRAINING,
            "distance_1_step": distance(update(retained, removed, 1).theta),
            "distance_2_steps": two_steps,
            "distance_1_step_no_l2": distance(without_l2_term(objective, theta, retained, removed)),
            "gradient_before": first.gradient_before,
            "gradient_after_1_step": first.gradient_after,
            "gradient_after_2_steps": second.gradient_after,
            "solver": str(second.solver),
            "update_seconds": update_seconds,
            "retrain_seconds": retrain_seconds,
            "bar": BAR,
            "met": two_steps <= BAR,
        }


def main() -> int:
    as_json = wants_json("Removal from a convex model, against retraining.")
    met = []

    def watched() -> Iterator[Case]:
        for case in cases():
            met.append(bool(case["met"]))
            yield case

    if as_json:
        print_json(watched())
    else:
        print_table(f"Distance to the retrained weights (bar: {BAR:g} after 2 steps)", list(watched()), ROWS)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
