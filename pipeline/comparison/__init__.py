"""Models next to each other: runs of MLflow, significance of a difference, promotion to champion."""
