from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.unlearning.data import Data
from benchmarks.unlearning.problems import ADAM_16, DIGITS, Model, Problem, RemovalKind, bench
from benchmarks.unlearning.removals import TARGET, content_of, removal_set
from oubli.components.model.samples import Samples

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def digits():
    return bench(DIGITS, NOWHERE)


@pytest.fixture(scope="module")
def texts():
    return bench(Problem("texts", Data.SYNTHETIC_TEXT, Model.ENCODER, ADAM_16), NOWHERE)


def no_models(samples: Samples, seed: int) -> nn.Module:
    raise AssertionError("this set is not chosen by models")


class Recalls(nn.Module):
    """Sure of the label of every image that it was given, and indifferent on all others."""

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self.known = {
            image.numpy().tobytes(): int(label) for image, label in zip(samples.inputs, samples.labels, strict=True)
        }
        self.last = nn.Linear(1, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = torch.zeros(len(inputs), 10)
        for place, image in enumerate(inputs):
            label = self.known.get(image.numpy().tobytes())
            if label is not None:
                outputs[place, label] = 0.1 * float(image.sum())
        return outputs


@pytest.mark.parametrize("kind", [RemovalKind.RANDOM, RemovalKind.MISLABELLED, RemovalKind.BACKDOOR])
def test_removed_and_retained_make_up_the_training_samples(digits, kind):
    found = removal_set(digits, kind, no_models)
    assert len(found.positions) == DIGITS.many == len(found.positions.unique())
    together = torch.cat([found.removed.inputs, found.retained.inputs]).flatten(1)
    assert torch.equal(together.sort(0).values, found.train.inputs.flatten(1).sort(0).values)


def test_mislabelled_samples_have_another_label_and_no_other_sample_has(digits):
    found = removal_set(digits, RemovalKind.MISLABELLED, no_models)
    changed = (found.train.labels != digits.train.labels).nonzero().flatten()
    assert torch.equal(changed, found.positions)


def test_a_few_of_the_mislabelled_leave_the_others_in_training(digits):
    few = removal_set(digits, RemovalKind.MISLABELLED_FEW, no_models)
    many = removal_set(digits, RemovalKind.MISLABELLED, no_models)
    assert len(few.positions) == DIGITS.few
    assert set(few.positions.tolist()) < set(many.positions.tolist())
    assert content_of(few.train) == content_of(many.train)


def test_a_backdoor_is_retrained_without_as_the_random_set_is(digits):
    backdoor = removal_set(digits, RemovalKind.BACKDOOR, no_models)
    random = removal_set(digits, RemovalKind.RANDOM, no_models)
    assert content_of(backdoor.retained) == content_of(random.retained)
    assert content_of(backdoor.train) != content_of(random.train)
    assert set(backdoor.removed.labels.tolist()) == {TARGET}


def test_the_trigger_is_on_every_removed_image_and_on_test_images_of_other_classes(digits):
    found = removal_set(digits, RemovalKind.BACKDOOR, no_models)
    corner = found.removed.inputs[..., -3:, -3:]
    assert (corner == digits.train.inputs.max()).all()
    assert found.triggered is not None
    assert len(found.triggered) == int((digits.test.labels != TARGET).sum())
    assert torch.equal(found.triggered.inputs[..., -3:, -3:].flatten().unique(), corner.flatten().unique())


def test_the_memorised_are_those_that_only_a_model_that_saw_them_knows(digits):
    found = removal_set(digits, RemovalKind.MEMORISED, lambda samples, _: Recalls(samples))
    # The surer the model that saw it, the larger the gap: by construction, the images with the largest sums.
    sums = digits.train.inputs.sum((1, 2, 3))
    expected = sums.argsort(descending=True)[: DIGITS.many]
    assert len(set(found.positions.tolist()) & set(expected.tolist())) >= DIGITS.many - 2


def test_a_cluster_is_of_one_class_and_its_nearest(digits):
    identity = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found = removal_set(digits, RemovalKind.CLUSTER, lambda *_: identity)
    labels = found.removed.labels.unique()
    assert len(labels) == 1
    # By the pixels themselves: some removed sample is nearer to every removed one than any other of its class.
    pixels = digits.train.inputs.flatten(1)
    same = (digits.train.labels == labels[0]).nonzero().flatten().tolist()
    removed = set(found.positions.tolist())
    nearest = [
        {same[place] for place in (pixels[same] - pixels[centre]).norm(dim=1).argsort()[: DIGITS.many].tolist()}
        for centre in found.positions.tolist()
    ]
    assert removed in nearest


def test_half_a_class_is_half_of_one_class(digits):
    found = removal_set(digits, RemovalKind.HALF_CLASS, no_models)
    (label,) = found.removed.labels.unique()
    assert len(found.positions) == int((digits.train.labels == label).sum()) // 2


def test_owners_go_whole_and_about_as_many_samples_as_asked_for(texts):
    found = removal_set(texts, RemovalKind.OWNERS, no_models)
    gone, left = texts.owner[found.positions], texts.owner[found.retained_positions]
    assert not set(gone.tolist()) & set(left.tolist())
    # No owner left would have brought the count nearer.
    counts = torch.bincount(texts.owner)
    off = abs(len(found.positions) - 100)
    assert all(abs(len(found.positions) + int(counts[owner]) - 100) >= off for owner in set(left.tolist()))


def test_content_tells_labels_and_inputs_apart(digits):
    samples = digits.train
    other = Samples(samples.inputs, (samples.labels + 1) % 10)
    assert content_of(samples) == content_of(Samples(samples.inputs.clone(), samples.labels.clone()))
    assert content_of(samples) != content_of(other)


def test_held_out_samples_are_no_test_samples(digits):
    held_out = {image.numpy().tobytes() for image in digits.held_out.inputs}
    assert not held_out & {image.numpy().tobytes() for image in digits.train.inputs}
    assert len(digits.held_out) + len(digits.test) == 360
