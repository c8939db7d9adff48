"""What runs Oubli elsewhere: deployments and service settings."""
