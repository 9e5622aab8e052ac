"""Reads what a model is and can do from its configuration files, before any weight is loaded."""

from poolkit.models.files import find_model_folder
from poolkit.models.read import ModelTables, read_model

__all__ = ["ModelTables", "find_model_folder", "read_model"]
