"""`python -m tmkt` is the command `tmkt`."""

import sys

from .cli import main

sys.exit(main())
