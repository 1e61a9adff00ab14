"""Somebody who watches long work and says nothing."""


class Quiet:
    """A watcher for tests that look at results, not at progress."""

    def began(self, name):
        pass

    def moved(self, name, done, of):
        pass

    def ended(self, name, reused):
        pass
