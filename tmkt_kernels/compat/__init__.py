"""Other libraries' models on our operators: `accelerate`, and the files that know one library each.

A file here imports its library when it is imported itself, which `accelerate` does only for libraries that are loaded.
"""

from .accelerate import Report, accelerate, restore

__all__ = ["Report", "accelerate", "restore"]
