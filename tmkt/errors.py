"""The error for mistakes that a user can correct, and exit statuses."""

UNHEARD = 74  # exit status if nothing can be printed: EX_IOERR of sysexits.h


class UserError(ValueError):
    """A mistake in a configuration, a data folder or a command.

    The message is one line: what was expected, what was found, what to do. The command line prints
    it without a traceback; every other exception is a defect of the program and keeps its traceback.
    """


class DamagedError(UserError):
    """A file is missing or differs from what was written; the message says which, and how."""


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C or SIGTERM; the message says where the same command will resume."""

    def __init__(self, message: str, status: int = 130) -> None:
        super().__init__(message)
        self.status = status  # of the process: 128 + the signal's number
