"""Tables that are written as text, because they are read that way."""


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def rows(text: str) -> list[list[str]]:
    """The words of each line of a text."""
    return [line.split() for line in text.strip().splitlines()]
