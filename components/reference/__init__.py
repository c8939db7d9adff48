"""Reference models and trainers: what the demo and the benchmarks remove from, and retrain."""
