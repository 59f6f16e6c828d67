"""How many of something, in words."""


def amount(count: int, things: str) -> str:
    """Write a count before its plural, which loses its s where there is one: 1 slide."""
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"
