"""What can go wrong with a measurement, by what the reader should do about it."""


class Missing(Exception):
    """Something that has to be there first: a program, a package, memory. Exit status 3."""


class Broken(Exception):
    """A command failed or its result was wrong, so its times mean nothing. The row says FAILED."""
