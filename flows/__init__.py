"""Thin orchestration: a flow only sequences, a task wraps one stage.

What is public:

    unlearn.unlearn         remove samples from a registered model
    compliance.compliance   do that for everything in the inbox, on a schedule
    train.train             train and register a first version
    train.retrain           train a version's recipe again without removed samples

The deployments name the first two by their import strings. Everything else is how these four do their work:
`stages` (the steps of a removal), `training` (those of a training), `job` (what the stages of one removal work on and
hand each other) and `runtime` (what is Prefect's).
"""
