"""x"""
ROWS = 4096  # tokens of prompts that are computed at once, where one sequence is not longer


def sequences_at_once(tokens: int) -> int:
    """Of so many tokens each."""
    return max(1, ROWS // tokens)
