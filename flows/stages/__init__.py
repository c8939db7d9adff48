"""The stages of a removal; `sequence` says in which order they run.

Each is a plain function of the settings and a job; none knows Prefect. What a stage computes goes into the job's work
area, where the next one, or a later run on another machine, finds it.
"""
