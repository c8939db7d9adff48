from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from oubli.components.errors import ConfigurationError
from oubli.components.measures.evaluation import retained_gradient_norm
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.models import cnn_batchnorm
from oubli.components.reference.secant import LastEpochs
from oubli.components.reference.training import fit_convex, fit_minibatch

L2 = 1e-2


def images(n: int = 60) -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(n, 1, 8, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator))


def network() -> nn.Module:
    return build_seeded(lambda: cnn_batchnorm(8, 8, 1, 3), 0)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_minibatch_training_of_a_head_leaves_the_backbone_and_its_statistics():
    module = network()
    before = state(module)
    fit_minibatch(module, images(), loss=cross_entropy, l2=L2, seed=0, epochs=2, trained=("head",))
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_minibatch_training_of_everything_moves_the_statistics():
    module = network()
    before = state(module)
    fit_minibatch(module, images(), loss=cross_entropy, l2=L2, seed=0, epochs=1)
    assert not torch.equal(module.state_dict()["backbone.1.running_mean"], before["backbone.1.running_mean"])


def test_settling_epochs_keep_the_statistics():
    seen = []
    module = network()
    fit_minibatch(
        module,
        images(),
        loss=cross_entropy,
        l2=L2,
        seed=0,
        epochs=4,
        settling=2,
        on_epoch=lambda epoch: seen.append((epoch, module.get_buffer("backbone.1.running_mean").clone())),
    )
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert not torch.equal(seen[0][1], seen[1][1])
    assert torch.equal(seen[1][1], seen[3][1])


def test_more_settling_than_epochs_is_refused():
    with pytest.raises(ConfigurationError, match="settling is 3 of 2"):
        fit_minibatch(network(), images(), loss=cross_entropy, l2=L2, seed=0, epochs=2, settling=3)


def test_convex_training_of_a_head_is_that_of_the_head_on_features():
    module = network().double().eval()
    before = state(module)
    samples = images().to("cpu", torch.float64)
    with torch.no_grad():
        features = Samples(module.backbone(samples.inputs), samples.labels)
    alone = fit_convex(copy.deepcopy(module.head), features, loss=cross_entropy, l2=L2)
    fit_convex(module, samples, loss=cross_entropy, l2=L2, trained=("head",))
    torch.testing.assert_close(module.head.weight, alone.weight, rtol=0, atol=1e-7)
    objective = Objective(module, cross_entropy, L2, trained=("head",))
    assert retained_gradient_norm(objective, objective.theta(), samples) <= 1e-8
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items() if "backbone" in name)


def test_the_secant_is_the_change_of_weights_and_of_the_mean_gradient():
    module, samples, kept = network(), images(), []
    epochs = LastEpochs(module)

    def record(epoch: int) -> None:
        epochs.record(epoch)
        kept.append(copy.deepcopy(module))

    fit_minibatch(module, samples, loss=cross_entropy, l2=L2, seed=0, epochs=4, settling=4, on_epoch=record)
    found = epochs.secant(samples, cross_entropy)

    def gradient(one: nn.Module) -> torch.Tensor:
        one = one.double().eval()
        loss = nn.functional.cross_entropy(one(samples.inputs.double()), samples.labels)
        return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(one.parameters()))])

    last, before = kept[-1], kept[-2]
    weights = [torch.cat([p.detach().reshape(-1) for p in one.double().parameters()]) for one in (last, before)]
    torch.testing.assert_close(found.step, weights[0] - weights[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.change, gradient(last) - gradient(before), rtol=0, atol=1e-10)


def test_one_epoch_has_no_secant():
    module = network()
    epochs = LastEpochs(module)
    epochs.record(1)
    with pytest.raises(ConfigurationError, match="1 epochs were recorded"):
        epochs.secant(images(), cross_entropy)
