"""Every name that Oubli writes to MLflow or looks up there: tags, metrics, params and artifacts.

Tags stand on registered versions and on runs. Metrics and params stand on runs, under equal names whether a version was
trained, unlearned or retrained, because MLflow compares runs by name.

The figures of one model on one set of samples (loss, accuracy, membership inference, gradient norm) are named where
they are measured, in `components/measures`; here are those of them that are read back.
"""

from __future__ import annotations

# Tags of a registered version.

RECORD = "oubli.record"
"""URI of the training record on the object store."""
RECORD_SHA256 = "oubli.record_sha256"
"""SHA-256 of the training record."""
WEIGHTS_SHA256 = "oubli.weights_sha256"
"""Digest of the version's weights and buffers."""
METHOD = "oubli.method"
"""How the version came to be: trained, unlearned or retrained."""
PARENT_VERSION = "oubli.parent_version"
"""The version it was made from."""
ANCESTORS = "oubli.ancestors"
"""The parent, its own parent, and so on, separated by commas."""
REMOVED = "oubli.removed"
"""URI of the list of every sample id removed since training."""
REMOVED_DIGEST = "oubli.removed_digest"
"""Digest of that list, under the store's secret key."""
SNAPSHOT = "oubli.snapshot"
"""URI of the curvature snapshot."""
SNAPSHOT_SHA256 = "oubli.snapshot_sha256"
"""SHA-256 of the curvature snapshot."""
SNAPSHOT_MISSING = "oubli.snapshot_missing"
"""Why a version has no curvature snapshot although one was wanted."""
ADVICE = "oubli.advice"
"""What removals from the version can expect, as far as its registration could tell."""

# Tags of a version and of its run.

REMOVAL_KEY = "oubli.removal_key"
"""The digest that names the removal, or the retraining, that made the version or left the run."""

VERDICT = "oubli.verdict"
"""What the gate decided about a removal. On a version: that there was nothing to forget, and its weights are the
parent's."""

# Suffixes of a metric's name.

OF_PARENT = "_parent"
"""The same figure of the parent version."""
OF_RETRAINED = "_retrained"
"""The same figure of the model that was retrained for comparison."""


class Metric:
    """Metrics of a run."""

    FORGET_SAMPLES = "forget_samples"
    """Samples that this removal takes."""
    RETAINED_SAMPLES = "retained_samples"
    """Samples that stay."""
    TEST_SAMPLES = "test_samples"
    """Held-out samples."""
    REMOVED_IN_ALL = "removed_in_all"
    """Samples of the data that the version lacks."""
    REMOVED_SINCE_TRAINING = "removed_since_training"
    """Samples that were removed by updates since the version's lineage was last trained."""
    SECONDS = "seconds"
    """Duration of the training or of the removal."""

    FORGET_LOSS = "forget_loss"
    """Mean loss of the removed samples."""
    FORGET_ACCURACY = "forget_accuracy"
    """Accuracy on the removed samples."""
    FORGET_MEMBERSHIP_AUC = "forget_membership_auc"
    """How well the losses tell removed samples from test samples."""
    RETAINED_LOSS = "retained_loss"
    """Mean loss of the retained samples."""
    RETAINED_ACCURACY = "retained_accuracy"
    """Accuracy on the retained samples."""
    RETAINED_MEMBERSHIP_AUC = "retained_membership_auc"
    """How well the losses tell retained samples from test samples."""
    RETAINED_MEMBERSHIP_AUC_ERROR = "retained_membership_auc_error"
    """Standard error of that."""
    RETAINED_GRADIENT_NORM = "retained_gradient_norm"
    """Norm of the objective's gradient over the retained samples."""
    TEST_LOSS = "test_loss"
    """Mean loss of the test samples."""
    TEST_ACCURACY = "test_accuracy"
    """Accuracy on the test samples."""

    DISAGREEMENT = "disagreement"
    """q: divergence from the judge on removed samples over that on held-out ones, beside the witness's."""
    EXCESS_DIVERGENCE = "excess_divergence"
    """Divergence from the judge on removed samples above that on held-out samples as hard, in their spread."""
    FORGET_RANK = "forget_rank"
    """A: how the removed samples' margins rank among those of held-out samples as hard."""
    FORGET_RANK_OVER_CLASSES = "forget_rank_over_classes"
    """The same among all pairs of a held-out sample and a class."""
    EXCESS_AS_LABELLED = "excess_as_labelled"
    """Removed samples predicted as labelled beyond one who never saw them, as a share."""
    HELD_OUT_DRIFT = "held_out_drift"
    """Divergence from the judge on held-out samples, as a multiple of the parent's."""

    MODEL_GRADIENT = "model_gradient"
    """Norm of the gradient that the parent was left with by its training."""
    REMOVAL_GRADIENT = "removal_gradient"
    """Norm of the gradient that the removal itself causes."""
    CAPACITY_GAMMA = "capacity_gamma"
    """Bound on the distance to the retrained weights that the noise is scaled by."""
    CAPACITY_REMAINING = "capacity_remaining"
    """Samples that may still be removed under the privacy target."""
    NOISE_SIGMA = "noise_sigma"
    """Standard deviation of the noise added to the weights."""
    DISTANCE_BOUND = "distance_bound"
    """Bound on the distance to the retrained weights of a convex model."""

    TUG_OF_WAR = "tug_of_war"
    """How close the updated model's accuracies come to the retrained model's, on all three sets."""
    FORGET_DIVERGENCE_FROM_RETRAINED = "forget_divergence_from_retrained"
    """Divergence of the predictions for removed samples from the retrained model's."""
    PARAMETER_DISTANCE_TO_RETRAINED = "parameter_distance_to_retrained"
    """Distance to the retrained weights, relative to the norm of the parent's."""


class Param:
    """Params of a run, all of them text."""

    METHOD = "method"
    """How the version came to be: trained, unlearned or retrained."""
    VERDICT = "verdict"
    """How that ended: trained, retrained, or what the gate decided."""
    PARENT_VERSION = "parent_version"
    """The version it was made from."""
    REQUEST_IDS = "request_ids"
    """The removal requests that were served."""
    REMOVED = "removed"
    """Samples that this version removes."""
    REMOVED_IN_ALL = "removed_in_all"
    """Samples removed since the model was trained."""
    REMOVAL_SET_DIGEST = "removal_set_digest"
    """Digest of the removed ids, under the store's secret key."""
    CONFIG_DIGEST = "config_digest"
    """Digest of the removal's configuration."""
    SELECTION = "selection"
    """Which parameters the update could change."""
    CURVATURE = "curvature"
    """The curvature of the update."""
    DAMPING = "damping"
    """The damping of the update, in words."""
    VERDICT_ERRORS = "verdict_errors"
    """How often verdicts of this kind are wrong, in words."""
    PRIVACY = "privacy"
    """What may be said of privacy, in words."""
    DATASET_SHA256 = "dataset_sha256"
    """Digest of the training data."""
    TRAINING_SAMPLES = "training_samples"
    """Training rows of the data."""
    LOSS = "loss"
    """The per-sample loss."""
    L2 = "l2"
    """Weight of the l2 penalty."""
    SEED = "seed"
    """Seed of the training."""
    CONVEX = "convex"
    """Whether the objective is convex."""
    TRAINED_PARAMETERS = "trained_parameters"
    """Names of the trained parameters or modules, or `all`."""
    FACTORY = "factory"
    """Import string of what builds the module."""


class Artifact:
    """Text artifacts of a run, by their paths in it."""

    EVIDENCE = "oubli/evidence.json"
    """What a removal measured and decided, stage by stage; of a training, the requests it served."""
    CONFIG = "oubli/config.json"
    """The removal's configuration."""
    TRAINING_RECORD = "oubli/training_record.json"
    """The training record."""
