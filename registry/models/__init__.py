"""MLflow's model registry: versions, lineage, weights."""
