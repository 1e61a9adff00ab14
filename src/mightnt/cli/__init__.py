"""One verb per file: parse, call one function, print."""


def main() -> None:
    """Placeholder until the verbs exist."""
