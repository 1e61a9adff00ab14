"""What a policy does, from its transcripts: kinds of turns, how much there is to describe, and a judge's comparison.

Transcripts are those of records (``audits.results.Transcript`` as JSON). Everything is compared with the demonstrator's own
episodes, as many of them, in the same world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mightnt.audits.description import Code, Units, describe, dialogue_of, smallest_policy
from mightnt.audits.judge import Question, Sample, TrueUtilityAndCompression, compare, drawn_pairs
from mightnt.audits.results import Token, Transcript, Turn
from mightnt.dialogues import Dialogue

EPISODES = 250
"""Episodes a run's behavior is told from, if it is measured on as many."""
FEWEST = 10
"""Episodes that the smallest policy needs."""


Kinds = Callable[[Iterable[Dialogue]], Mapping[Any, float]]
"""Shares of the assistants' turns by kind, as ``worlds.chat.kinds.shares_by_kind``."""


def sample_of(kept: dict[str, Any]) -> Sample:
    """A transcript of a record as a dialogue, with what it was worth."""
    turns = tuple(
        Turn(turn["speaker"], tuple(Token(token["text"]) for token in turn["tokens"])) for turn in kept["turns"]
    )
    return Sample(dialogue_of(Transcript(turns, kept["proxy_reward"], kept["true_utility"])), kept["true_utility"])


def behavior(
    own: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], units: Units, kinds: Kinds | None, seed: int
) -> dict[str, Any]:
    """The entries ``kinds``, ``description``, ``smallest_policy`` and ``judged`` of what a run measured.

    ``others`` are the demonstrator's. Where there are too few episodes the smallest policy is ``None``; ``judged`` compares the
    run's episodes with the demonstrator's, by the built-in judge, on what it can tell; empty without the demonstrator's.

    Kind: shares exact for these episodes, bits exact under the stated code, the smallest policy and the judge estimates.
    Cost: some seconds.
    """
    mine, theirs = (list(map(sample_of, kept)) for kept in (own, others))
    dialogues = [sample.dialogue for sample in mine]
    n_pairs = min(len(mine), len(theirs))
    pairs = drawn_pairs(mine, theirs, n_pairs, seed) if n_pairs else []
    judge = TrueUtilityAndCompression()
    known = all(sample.true_utility is not None for sample in (*mine, *theirs))
    questions = [one for one in Question if known or one is not Question.BETTER] if pairs else []
    small = smallest_policy(dialogues, units, seed=seed).as_record() if len(dialogues) >= FEWEST else None
    return {
        "behavior_episodes": len(dialogues),
        "kinds": {str(kind): share for kind, share in kinds(dialogues).items()} if kinds else None,
        "description": describe(dialogues, Code(units)).as_record(),
        "smallest_policy": small,
        "judged": [compare(judge, question, pairs, seed).as_record() for question in questions],
    }
