"""Other libraries' models on our operators: `accelerate`, and one file per library.

A file here imports its library at its own import, and `accelerate` imports a file only if its library is loaded.
"""

from .accelerate import Report, accelerate, restore

__all__ = ["Report", "accelerate", "restore"]
