"""Candidates made of Kazoo's Election, for the benchmarks to compare with.

    python peer.py CONNECT PATH SESSION_TIMEOUT_MS NAME COUNT

The candidates NAME-0, NAME-1, … have a session each, as in programs of their own. Standard input takes one command a line:

    resign ID   the leader ID gives up and joins again, behind the others   (no answer; see the events)
    leads       who leads by its own account, and in which of its terms     leads ID:TERM …
    count       how many znodes the election has                            count N

Events: `ready`, `elected ID NS`, `demoted ID NS`; stamps are nanoseconds of CLOCK_MONOTONIC. The program ends with its standard
input.
"""

import os
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException

OUT = threading.Lock()


def say(line):
    with OUT:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Candidate:
    def __init__(self, name, connect, path, timeout):
        self.name, self.path = name, path
        self.released = threading.Event()
        self.leading, self.terms = False, 0
        self.client = KazooClient(hosts=connect, timeout=timeout)
        self.client.add_listener(self.changed)
        self.client.start(timeout=60)
        threading.Thread(target=self.stand, daemon=True).start()

    def changed(self, state):
        # As Kazoo's own documentation has it: a leader stops when the connection is in doubt.
        if state != KazooState.CONNECTED and self.leading:
            self.leading = False
            say(f"demoted {self.name} {time.monotonic_ns()}")
            self.released.set()

    def lead(self):
        now = time.monotonic_ns()
        self.released.clear()
        self.leading, self.terms = True, self.terms + 1
        say(f"elected {self.name} {now}")
        self.released.wait()
        if self.leading:
            self.leading = False
            say(f"demoted {self.name} {time.monotonic_ns()}")

    def stand(self):
        while True:
            try:
                self.client.Election(self.path, self.name).run(self.lead)
            except KazooException as failure:
                # It stands again, with whatever session the client has by then.
                print(f"{self.name}: {failure!r}", file=sys.stderr)
                time.sleep(0.05)


def main():
    connect, path, timeout, name, count = sys.argv[1:]
    candidates = {}
    for n in range(int(count)):
        candidate = Candidate(f"{name}-{n}", connect, path, int(timeout) / 1000)
        candidates[candidate.name] = candidate
    say("ready")
    client = next(iter(candidates.values())).client
    for line in sys.stdin:
        words = line.split()
        if words[0] == "resign":
            candidates[words[1]].released.set()
        elif words[0] == "leads":
            leading = [f" {one.name}:{one.terms}" for one in candidates.values() if one.leading]
            say("leads" + "".join(leading))
        elif words[0] == "count":
            try:
                say(f"count {len(client.get_children(path))}")
            except KazooException as failure:
                say(f"failed count: {failure!r}")
        else:
            say(f"failed {line.strip()}: no such command")
    # Sessions are left to expire: whoever lets go of this program is done with the server.
    os._exit(0)


main()
