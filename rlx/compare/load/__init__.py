"""Reading results from run folders and MLflow."""
