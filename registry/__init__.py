"""Side effects: object storage, removal sets, training records, MLflow."""
