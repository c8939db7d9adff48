"""Solving (A + shift * I) x = b for a curvature A, in the way that its size asks for.

Three ways, tried in this order by `choose_solver`, for a block of d_P parameters and a factor of r rows:

1. Woodbury, where r < d_P: work 2 r^2 d_P + r^3 / 3 for an r x r matrix in place of a d_P x d_P one.
2. Cholesky, where building A (2 r d_P^2) and factoring it (d_P^3 / 3) stay affordable: exact, and it finds any
   negative curvature there is.
3. Conjugate gradients on products otherwise: each iteration is one pass over the samples, nothing is stored but
   vectors. Negative curvature is found only where the iteration meets it.

The direct ways are preferred while they cost seconds, or no more than the iteration would: their error does not depend
on the conditioning that an iteration needs, and no pass over the data is repeated. No way returns a solution for an
indefinite matrix: that solution would not lower the objective, and conjugate gradients that kept such an iterate have
destroyed models. Nor does any return a vector whose own residual, computed anew, is above `tolerance_of` its dtype.
"""

from oubli.components.solvers.choosing import DIRECT_BYTES, DIRECT_FLOPS, Factored, choose_solver, prepare_system
from oubli.components.solvers.conjugate_gradients import CG_ITERATIONS, ProductSystem
from oubli.components.solvers.direct import DenseSystem, WoodburySystem
from oubli.components.solvers.precision import full_precision
from oubli.components.solvers.solution import Product, Solution, SolverName, System, tolerance_of

__all__ = [
    "CG_ITERATIONS",
    "DIRECT_BYTES",
    "DIRECT_FLOPS",
    "DenseSystem",
    "Factored",
    "Product",
    "ProductSystem",
    "Solution",
    "SolverName",
    "System",
    "WoodburySystem",
    "choose_solver",
    "full_precision",
    "prepare_system",
    "tolerance_of",
]
