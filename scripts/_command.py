"""What the command lines of the scripts have in common."""

import argparse
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
