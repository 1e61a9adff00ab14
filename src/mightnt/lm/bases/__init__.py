"""Bases for language models: each turns what the members say into log nu, which may sum to less than one.

One contract: ``start(rows) -> state``, ``predict(state, step) -> log nu``, ``advance(state, step, tokens, own) -> state``
with ``step`` what the members said (``lm.members.MemberStep``), ``own`` which rows the agent itself chose, and states
that are values of shape (rows, ...). What is missing from one is the asking probability.
"""
