"""The `oubli` command."""
