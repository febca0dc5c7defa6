"""The two kinds of failure that are not bugs, and what Ctrl-C ends with."""

INTERRUPTED = 130  # the exit code that shells give for Ctrl-C
INTERRUPTED_SAYS = "interrupted; run the same command again to go on"


class UserError(Exception):
    """The user's mistake. The message is one sentence that says what is wrong and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """


class ClipError(Exception):
    """One clip cannot be used. The run goes on; the message becomes the clip's row in `failures`."""
