"""What processes do with a store before they die: run as ``python -m tests.faults.store_worker work|limited FOLDER NUMBER``."""

import os
import resource
import sys
import threading
import time
from pathlib import Path

from mightnt.desk.database import StoreError
from mightnt.desk.store import open_store
from mightnt.desk.tickets import State
from tests.desk.questions import answer, inquiry


def work(folder, n_threads):
    """In the process that will die: threads ask, charge and answer, and say so once it is acknowledged.

    Every question and answer is sent again now and then, with the same key, as a client does that heard nothing. Each thread
    goes on from where the one of the process before it stopped, and sends its last three again.
    """
    said = threading.Lock()

    def say(line):
        with said:
            os.write(1, f"{line}\n".encode())

    def load(thread, store):
        conversation = f"{thread}"
        store.open_conversation(conversation, float("inf"))
        done = store.account(conversation).n_turns
        turn = max(0, done - 3)
        while True:
            key = f"{thread}-{turn}"
            store.charge(conversation, turn, 0.25)
            say(f"charged {key}")
            for _ in range(1 + turn % 2):
                ticket = store.ask(key, inquiry(conversation, turn), "ann", time.time() + 3600)
            say(f"asked {key} {ticket.number}")
            for _ in range(1 + turn % 3):
                store.decide(ticket.number, answer(f"words of {key}", key=f"decision {key}"))
            say(f"answered {key} {ticket.number}")
            if turn % 5 == 0:
                store.release()
            turn += 1

    with open_store(Path(folder), undo_seconds=0.01) as store:
        say("open")
        threads = [threading.Thread(target=load, args=(f"{i}", store), daemon=True) for i in range(int(n_threads))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def limited(folder, most_bytes):
    """In a process of its own: no file may grow beyond ``most_bytes``; say what was acknowledged until nothing is."""
    with open_store(Path(folder), undo_seconds=0) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
        refused = 0
        for i in range(2000):
            try:
                number = store.ask(f"{i}", inquiry(f"{i}"), "ann", time.time() + 3600).number
                store.decide(number, answer(f"{i}", key=f"k{i}"))
                print("answered", number, i, flush=True)
            except StoreError as error:
                refused += 1
                print("refused", i, error, flush=True)
            if refused == 5:
                assert store.counts()[State.DECIDED] > 0, "what was acknowledged can still be read"
                return


if __name__ == "__main__":
    {"work": work, "limited": limited}[sys.argv[1]](*sys.argv[2:])
