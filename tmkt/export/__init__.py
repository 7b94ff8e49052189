"""`tmkt export`: a finished run as one folder to hand on."""

from .folder import FORMATS, export_run

__all__ = ["FORMATS", "export_run"]
