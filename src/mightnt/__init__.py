"""Reinforcement learning that stays within what a trusted person might do."""

__version__ = "0.1.0"
