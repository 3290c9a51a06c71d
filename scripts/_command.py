"""What the command lines of the scripts have in common."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def seconds(text: str) -> float:
    """Read the value of an option; argparse tells people which one was wrong.

    Raises:
        ValueError: no number, or none between 0 and 600.
    """
    number = float(text)
    if not 0 < number <= 600:
        raise ValueError(text)
    return number


def run(main: Callable[[], int]) -> int:
    """Run a command whose reader may have seen enough, or not know every letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The name of a file may be no text at all, and the terminal may know ASCII only.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has gone; the interpreter would complain about the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
