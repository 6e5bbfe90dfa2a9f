"""MLflow tracking: mirrors the run folder to a server that may come and go."""
