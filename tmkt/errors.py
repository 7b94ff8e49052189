"""The one kind of error that a user can put right."""


class UserError(ValueError):
    """A mistake in a configuration, a data folder or a command.

    The message is one line: what was expected, what was found, what to do. The command line prints
    it without a traceback; every other exception is a defect of the program and keeps its traceback.
    """
