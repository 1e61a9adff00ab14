"""How far that is, and how much is left."""
