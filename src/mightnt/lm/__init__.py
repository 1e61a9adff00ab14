"""The same chain for language models: the only room that imports torch."""
