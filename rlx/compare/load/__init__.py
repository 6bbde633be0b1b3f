"""Read results from run folders and from MLflow."""
