"""The error whose message is meant for the user at the terminal."""


class CourseError(Exception):
    """Something outside the code is wrong: a file, the disk, a device, a setting.

    The message has one or a few lines that state what was given, what was expected and what to do. The command line
    prints it without a traceback and exits with a non-zero status. A wrong call inside the code raises ValueError
    instead, with a traceback that shows the caller.
    """
