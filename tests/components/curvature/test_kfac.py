from __future__ import annotations

import pytest
import torch
from oracles import dense_gauss_newton, output_hessian, output_jacobian
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.blocks.slices import find_slices
from oubli.components.curvature.kfac import EigenvalueCorrected, Kronecker
from oubli.components.errors import ConfigurationError, IndefiniteCurvature
from oubli.components.model.losses import Loss, cross_entropy, loss_function, mse
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.solvers import DenseSystem


def restricted(objective: Objective, block: Tensor | None = None) -> Restriction:
    return Restriction(objective, objective.theta(), block)


def within(objective: Objective, *names: str) -> Tensor:
    ranges = [objective.space.range_of(name) for name in names]
    return torch.cat([torch.arange(one.start, one.stop) for one in ranges])


def factors_by_definition(objective: Objective, samples: Samples, name: str, patches: object) -> Tensor:
    """The K-FAC block of the layer `name`, sample by sample and position by position.

    patches: (the layer's input, one sample) -> rows (T, I), in the order of its outputs' positions.
    """
    layer = objective.module.get_submodule(name)
    inputs_total, outputs_total, rows = 0, 0, 0
    for one, label in zip(samples.inputs, samples.labels, strict=True):
        seen = {}

        def see(_module, arguments, output, seen=seen):
            seen["input"], seen["output"] = arguments[0], output.requires_grad_()

        hook = layer.register_forward_hook(see)
        outputs = objective.outputs({}, one[None])
        hook.remove()
        inner = output_hessian(objective, outputs.detach().reshape(-1), outputs.shape[1:], label)
        jacobian = torch.stack(
            [torch.autograd.grad(element, seen["output"], retain_graph=True)[0][0] for element in outputs.reshape(-1)]
        )
        # (C outputs of the model, C_layer, T positions)
        jacobian = jacobian.flatten(2) if jacobian.ndim > 2 else jacobian[:, :, None]
        for at in range(jacobian.shape[2]):
            outputs_total = outputs_total + jacobian[:, :, at].T @ inner @ jacobian[:, :, at]
        for row in patches(seen["input"][0]):
            extended = torch.cat([row.reshape(-1), row.new_ones(1)])
            inputs_total = inputs_total + torch.outer(extended, extended)
            rows += 1
    return torch.kron(outputs_total / len(samples), inputs_total / rows)


def three_by_three(image: Tensor) -> list[Tensor]:
    padded = functional.pad(image, (1, 1, 1, 1))
    return [padded[:, i : i + 3, j : j + 3] for i in range(image.shape[1]) for j in range(image.shape[2])]


def weight_then_bias(outputs: int, inputs: int) -> Tensor:
    """The flat order (weight, bias) of a block in the order (output, input and bias)."""
    table = torch.arange(outputs * (inputs + 1)).reshape(outputs, inputs + 1)
    return torch.cat([table[:, :-1].reshape(-1), table[:, -1]])


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("budget_bytes", [1, 2**28])
def test_layers_match_the_definition_and_the_rest_is_the_diagonal(network, images, loss, budget_bytes):
    labels = images.labels if loss is Loss.CROSS_ENTROPY else (torch.arange(60).reshape(20, 3) % 2).double()
    samples = Samples(images.inputs, labels)
    objective = Objective(network, loss_function(loss), 0.0)
    found = Kronecker(restricted(objective), samples, budget_bytes, seed=None)
    assert found.kronecker == ("0", "6")
    assert found.diagonal == ("1.weight", "1.bias")
    expected = torch.zeros(found.size, found.size, dtype=torch.float64)
    for name, patches, shape in (("0", three_by_three, (3, 9)), ("6", lambda at: [at], (3, 12))):
        at, order = within(objective, f"{name}.weight", f"{name}.bias"), weight_then_bias(*shape)
        expected[at[:, None], at] = factors_by_definition(objective, samples, name, patches)[order[:, None], order]
    rest = within(objective, "1.weight", "1.bias")
    expected[rest, rest] = dense_gauss_newton(objective, samples).diagonal()[rest]
    torch.testing.assert_close(found.dense(), expected, rtol=1e-9, atol=1e-12)
    vector = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-9, atol=1e-12)
    solved = found.system().solve(vector, 0.05)
    torch.testing.assert_close(solved.x, DenseSystem(expected).solve(vector, 0.05).x, rtol=1e-8, atol=1e-9)
    assert found.system().mean_diagonal() == pytest.approx(float(expected.diagonal().mean()))


@pytest.mark.parametrize("kind", [Kronecker, EigenvalueCorrected])
def test_one_sample_of_a_linear_model_is_exact(linear_objective, classes, kind):
    one = classes.select(torch.tensor([3]))
    found = kind(restricted(linear_objective), one, seed=None)
    torch.testing.assert_close(found.dense(), dense_gauss_newton(linear_objective, one), rtol=1e-9, atol=1e-12)


def test_squared_errors_of_a_linear_model_are_exact(regression_objective, targets):
    # The loss's Hessian is the same for all samples, so the product of the means is the mean of the products.
    found = Kronecker(restricted(regression_objective), targets, seed=None)
    torch.testing.assert_close(found.dense(), dense_gauss_newton(regression_objective, targets), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [None, 0])
def test_corrected_eigenvalues_are_the_diagonal_in_the_eigenbasis(network_objective, images, seed):
    plain = Kronecker(restricted(network_objective), images, seed=seed)
    found = EigenvalueCorrected(restricted(network_objective), images, seed=seed)
    if seed is not None:
        # With drawn labels the moments are of the same draws, whatever pass they are seen in.
        assert found.system().mean_diagonal() > 0
        again = EigenvalueCorrected(restricted(network_objective), images, budget_bytes=1, seed=seed)
        torch.testing.assert_close(found.dense(), again.dense(), rtol=1e-9, atol=1e-12)
        return
    exact = dense_gauss_newton(network_objective, images)
    for block in found.system().blocks:
        at = block.places.reshape(-1)
        basis = torch.kron(block.left, block.right)
        diagonal = (basis.T @ exact[at[:, None], at] @ basis).diagonal()
        torch.testing.assert_close(block.eigenvalues.reshape(-1), diagonal, rtol=1e-8, atol=1e-11)
        # No diagonal in this basis is nearer, K-FAC's least of all.
        inside = exact[at[:, None], at]
        assert float((found.dense()[at[:, None], at] - inside).norm()) < float(
            (plain.dense()[at[:, None], at] - inside).norm()
        )


def test_drawn_labels_give_the_exact_factors_in_the_mean(network_objective, images):
    few = images.select(torch.arange(4))
    exact = Kronecker(restricted(network_objective), few, seed=None).system()
    at = exact.blocks[1].places.reshape(-1)
    expected = exact.dense()[at[:, None], at]
    draws = [Kronecker(restricted(network_objective), few, seed=seed).dense()[at[:, None], at] for seed in range(150)]
    assert float((sum(draws) / len(draws) - expected).norm() / expected.norm()) < 0.15
    assert float((draws[0] - expected).norm() / expected.norm()) > 0.15


@pytest.mark.parametrize("kind", [Kronecker, EigenvalueCorrected])
def test_a_block_of_whole_output_units_is_the_sub_matrix(network_objective, images, kind):
    slices = find_slices(network_objective.module)
    chosen = [one for one in slices.slices if str(one) in ("0[1]", "6[0]", "6[2]")]
    norm = within(network_objective, "1.weight")[1:]
    block = torch.cat([slices.indices(chosen), norm]).unique()
    found = kind(restricted(network_objective, block), images, seed=None)
    assert found.size == 10 + 2 * 13 + 2
    if kind is Kronecker:
        whole = Kronecker(restricted(network_objective), images, seed=None).dense()
        torch.testing.assert_close(found.dense(), whole[block][:, block], rtol=1e-9, atol=1e-12)
    else:
        exact = dense_gauss_newton(network_objective, images)[block][:, block]
        assert float(found.dense().trace()) == pytest.approx(float(exact.trace()))
    b = torch.ones(found.size, dtype=torch.float64)
    expected = DenseSystem(found.dense()).solve(b, 0.1).x
    torch.testing.assert_close(found.system().solve(b, 0.1).x, expected, rtol=1e-8, atol=1e-9)


def test_a_block_that_cuts_through_an_output_unit_is_refused(network_objective, images):
    block = within(network_objective, "6.weight")  # without the biases
    with pytest.raises(ConfigurationError, match=r"cuts through output units of the layer '6'.*ggn"):
        Kronecker(restricted(network_objective, block), images).system()


def test_attention_embeddings_and_norms(token_objective, tokens):
    found = Kronecker(restricted(token_objective), tokens, seed=None)
    assert found.kronecker == ("layer.linear1", "layer.linear2", "head")
    assert "embed.weight" in found.diagonal
    assert "layer.self_attn.in_proj_weight" in found.diagonal
    assert "layer.self_attn.out_proj.weight" in found.diagonal  # attention reads it without its forward
    exact = dense_gauss_newton(token_objective, tokens).diagonal()
    at = within(token_objective, *found.diagonal)
    torch.testing.assert_close(found.dense().diagonal()[at], exact[at], rtol=1e-9, atol=1e-13)
    corrected = EigenvalueCorrected(restricted(token_objective), tokens, seed=None)
    # An orthogonal basis keeps the trace, and the corrected eigenvalues are the exact diagonal in theirs.
    assert float(corrected.dense().trace()) == pytest.approx(float(exact.sum()))


def test_recurrent_cells_get_a_diagonal(recurrent_objective, sequences):
    found = Kronecker(restricted(recurrent_objective), sequences, seed=None)
    assert found.kronecker == ("head",)
    exact = dense_gauss_newton(recurrent_objective, sequences).diagonal()
    at = within(recurrent_objective, *found.diagonal)
    torch.testing.assert_close(found.dense().diagonal()[at], exact[at], rtol=1e-9, atol=1e-13)


class Odd(nn.Module):
    """A layer used twice, tied weights, grouped and strided convolutions, operations in place, group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(2, 2, 3, padding="same", groups=2)
        self.strided = nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular", bias=False)
        self.norm = nn.GroupNorm(2, 4)
        self.twice = nn.Linear(4, 4)
        self.first = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight
        self.lines = nn.Conv1d(2, 3, 2, dilation=2)
        self.deep = nn.Conv3d(1, 2, (1, 2, 2), padding=(0, 1, 0))
        self.head = nn.Linear(3 + 2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = self.norm(self.strided(self.grouped(inputs))).relu_().mean((2, 3))
        flat = self.twice(torch.tanh(self.twice(flat)))
        mixed = self.tied(torch.tanh(self.first(flat)))
        mixed += flat
        lines = self.lines(mixed.reshape(-1, 2, 2).repeat(1, 1, 2)).mean(2)
        deep = self.deep(mixed.reshape(-1, 1, 1, 2, 2)).mean((2, 3, 4))
        return self.head(torch.cat([lines, deep], 1))


def test_odd_layers():
    objective = Objective(build_seeded(Odd, 2), cross_entropy, 0.0)
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(5, 2, 4, 4, generator=generator, dtype=torch.float64)
    samples = Samples(inputs, torch.arange(5) % 3)
    found = EigenvalueCorrected(restricted(objective), samples, seed=None)
    assert found.kronecker == ("strided", "twice", "lines", "deep", "head")
    assert set(found.diagonal) == {"grouped.weight", "grouped.bias", "norm.weight", "norm.bias", "first.weight"}
    exact = dense_gauss_newton(objective, samples)
    for block in found.system().blocks:
        at = block.places.reshape(-1)
        basis = torch.kron(block.left, block.right)
        diagonal = (basis.T @ exact[at[:, None], at] @ basis).diagonal()
        torch.testing.assert_close(block.eigenvalues.reshape(-1), diagonal, rtol=1e-8, atol=1e-12)
    rest = within(objective, *found.diagonal)
    torch.testing.assert_close(found.dense().diagonal()[rest], exact.diagonal()[rest], rtol=1e-9, atol=1e-13)


def test_only_what_was_trained_is_covered(network, images):
    objective = Objective(network, cross_entropy, 0.0, trained=["6.weight"])
    found = Kronecker(restricted(objective), images, seed=None)
    assert (found.kronecker, found.diagonal) == (("6",), ())
    inputs_only = Kronecker(restricted(Objective(network, cross_entropy, 0.0)), images, seed=None).system()
    places = inputs_only.blocks[1].places[:, :-1].reshape(-1)
    torch.testing.assert_close(found.dense(), inputs_only.dense()[places][:, places], rtol=1e-9, atol=1e-12)
    biases = Kronecker(restricted(Objective(network, cross_entropy, 0.0, trained=["6.bias"])), images, seed=None)
    assert (biases.kronecker, biases.diagonal) == ((), ("6.bias",))
    _, jacobian = output_jacobian(biases.restriction.objective, images.inputs[0])
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64))
    outputs = objective.outputs({}, images.inputs).softmax(1)
    torch.testing.assert_close(biases.dense().diagonal(), (outputs * (1 - outputs)).mean(0))


def test_without_a_shift_a_singular_factor_is_refused(linear_objective, classes):
    with pytest.raises(IndefiniteCurvature, match="smallest eigenvalue"):
        # Cross-entropy does not know a shift of all logits.
        Kronecker(restricted(linear_objective), classes.select(torch.arange(2)), seed=None).system().solve(
            linear_objective.theta(), 0.0
        )


def test_curvlinops_finds_the_same(images):
    curvlinops = pytest.importorskip("curvlinops")
    module = build_seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3)), 1
    ).double()
    few = images.select(torch.arange(6))
    for function, loss, labels in (
        (cross_entropy, nn.CrossEntropyLoss(), few.labels),
        (mse, nn.MSELoss(), torch.arange(18).reshape(6, 3).double()),
    ):
        objective = Objective(module, function, 0.0)
        for ours, theirs in (
            (Kronecker, curvlinops.KFACLinearOperator),
            (EigenvalueCorrected, curvlinops.EKFACLinearOperator),
        ):
            operator = theirs(
                module,
                loss,
                list(module.parameters()),
                [(few.inputs, labels)],
                fisher_type="type-2",
                kfac_approx="expand",
                separate_weight_and_bias=False,
                check_deterministic=False,
            )
            expected = operator @ torch.eye(objective.space.d, dtype=torch.float64)
            found = ours(restricted(objective), Samples(few.inputs, labels), seed=None).dense()
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)
