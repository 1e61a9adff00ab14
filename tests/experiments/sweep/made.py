"""Made-up runs of the right shape, and an engine that runs parts here and now."""

import zlib

from mightnt.experiments.parts import Outcome
from mightnt.experiments.sweep.records import Record, Records


def mean(value, largest=None):
    return {"mean": value, "standard_error": 0.1, "n": 1000, "max": value if largest is None else largest}


def measured(cell, seed, **values):
    """What a run of the chat measures, each number a little different for each seed."""
    jitter = 0.02 * seed
    if cell.alone:
        own = {
            "kl_base_demonstrator_nats": mean(0.0 if cell.base == "known" else 20.0 + jitter),
            "proxy_reward": mean(0.4 + jitter),
            "true_utility": mean(1.7 + jitter),
        }
    else:
        far = {"mixture": 15.0, "single": 12.0}.get(cell.base, 0.95)
        at_a_price = 0.1 / cell.strength if cell.constraint == "penalty" else cell.strength
        spent = 80.0 if cell.base == "none" else at_a_price
        own = {
            "proxy_reward": mean(0.5 + 0.01 * spent + jitter),
            "true_utility": mean(1.9 - 0.01 * spent * far),
            "kl_base_nats": mean(0.99 * spent),
            "kl_demonstrator_nats": mean(far * spent + jitter, 1.5 * far * spent),
            "asks_per_turn": 0.004 * seed,
            "episodes": 1000,
            "turns": 6000,
            "demonstrator_tokens": 120,
            "kl_base_by_token_nats": [0.01 * spent / (i + 1) for i in range(40)],
            "kl_demonstrator_by_token_nats": [0.01 * far * spent / (i + 1) for i in range(40)],
            "transcripts": [transcript()],
        }
    return own | values


def transcript():
    def word(text, nats=None):
        return {"text": text, "kl_base_nats": nats, "kl_demonstrator_nats": nats}

    return {
        "turns": [
            {"speaker": "user", "asked": False, "tokens": [word("hi"), word("there")]},
            {
                "speaker": "assistant",
                "asked": False,
                "tokens": [word("well", 0.001), word("done", 12.0), word("", 1.5)],
            },
            {"speaker": "user", "asked": False, "tokens": [word("okay")]},
            {"speaker": "assistant", "asked": False, "tokens": [word("", 13.7)]},
        ],
        "proxy_reward": 0.5,
        "true_utility": 1.0,
    }


def recorded(runs, **values):
    """Records of these runs."""
    origin = {"commit": "abc"}
    return Records({run: Record(*run, measured(*run, **values), seconds=60.0, provenance=origin) for run in runs})


class Here:
    """Runs every part at once, in this process."""

    capacity = 1

    def __init__(self):
        self.ran = []
        self.held = []

    def submit(self, part):
        self.held.append(part)

    def wait(self, seconds, watcher):
        part = self.held.pop()
        self.ran.append(part.name)
        watcher.began(part.name)
        try:
            return [Outcome(part, value=part.function(*part.arguments, lambda done, of: None))]
        except Exception as error:
            return [Outcome(part, error=error)]

    def close(self):
        pass


class Listener:
    """Remembers how far the whole was said to be."""

    def __init__(self):
        self.told, self.names = [], []

    def began(self, name):
        pass

    def moved(self, name, done, of):
        pass

    def ended(self, name, reused):
        self.names.append(name)

    def overall(self, done, of, seconds_left):
        self.told.append((done, of, seconds_left))


def fake_prepare(folder, cell, seed, report):
    """Leave a mark a call."""
    path = folder / f"prepared-{cell.n_demonstrations}-{seed}.marks"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as marks:
        marks.write("x")
    return {}


def fake_run(folder, cell, seed, report):
    """A run that takes no time; needs what was prepared; the same numbers for the same cell and seed."""
    assert (folder / f"prepared-{cell.n_demonstrations}-{seed}.marks").exists()
    with open(folder / f"{cell.key}-{seed}.marks", "a") as marks:
        marks.write("x")
    report(1, 1)
    return measured(cell, seed) | {"draw": zlib.crc32(f"{cell.key} {seed}".encode())}
