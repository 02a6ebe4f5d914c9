"""How much one forward may hold."""

TOKENS = 1 << 13  # tokens of one forward
TREE = 1 << 11  # tokens of one prompt's tree: wider ones spend more on attention than they save
CHUNK = 1 << 8  # tokens of a catalogue's trie read at once behind what is read of the prompt
LOGITS = 1 << 24  # logits held at once: 64 MiB in float32


def rows_at_once(tokens: int, logits: int) -> int:
    """Return how many rows of so many tokens and logits each one forward takes, at least one."""
    return max(1, min(TOKENS // tokens, LOGITS // logits))
