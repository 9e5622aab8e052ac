"""Measurements of poolkit beside the library it is most often compared with."""
