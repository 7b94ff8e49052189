"""`python -m tmkt` is the command `tmkt`."""

import sys

from .cli import main
from .training.signals import end_with_parent

end_with_parent()
sys.exit(main())
