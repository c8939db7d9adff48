"""Thin orchestration: a flow only sequences, a task wraps one call."""
