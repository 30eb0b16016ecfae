"""MLflow: logging runs, the model registry, and bundles as MLflow models. Only this folder imports mlflow."""
