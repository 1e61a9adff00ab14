"""A small language of policies that is closed under "if this has happened, then that policy, else this one"."""
