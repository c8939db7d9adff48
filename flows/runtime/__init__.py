"""What belongs to Prefect: retries, progress and the page of an outcome."""
