"""The one kind of error that is a message for the person at the terminal."""


class CourseError(Exception):
    """Something outside the code is not as it should be: a file, the disk, a device, a setting.

    The message is one or a few lines that say what was given, what was expected and what to do;
    the command line prints it without a traceback and ends with a non-zero status.
    (A wrong call inside the code is a ValueError, and shows where it was made.)
    """
