"""What a node of the group does: the leader hands out one job at each tick, to one member after the other, and writes down how far
it is; the members do the jobs. What each function is for is told in wit/deps/bellwether-runtime."""

import json
from dataclasses import asdict, dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Cause, DemotionReason, Leadership, Membership
from wit_world.exports.worker import Task
from wit_world.imports import cluster, logging, state, workers
from wit_world.imports.logging import Level

GREETING = "hello"


@dataclass
class Progress:
    """How far the jobs are: what the key `next` of the group's state holds, and its version; none if there is no such key yet."""

    next: int = 1
    version: int | None = None


class Known:
    """What an instance knows. Its callbacks come one at a time."""

    members: list[str] = []
    turn = 0
    progress: Progress | None = None


known = Known()


def log(level: Level, message: str) -> None:
    logging.log(level, "", message)


def load() -> Progress:
    try:
        entry = state.get("next")
    except Err as error:
        raise Err(f"the progress cannot be read: {error.value}") from None
    if entry is None:
        return Progress()
    if not entry.value.isdigit():
        raise Err("the key `next` holds no number")
    return Progress(int(entry.value), entry.version)


def save(next: int, last: int | None) -> Progress:
    """Writes the progress down. It is refused if another leader has written in between."""
    expect = state.Expectation_Absent() if last is None else state.Expectation_Version(last)
    try:
        return Progress(next, state.put("next", b"%d" % next, expect))
    except Err as error:
        raise Err(f"the progress was not written down: {error.value}") from None


class Ticker(exports.Ticker):
    def on_tick(self) -> None:
        if not known.members:
            return
        progress = known.progress or load()
        # Should something fail, the next tick reads what is there.
        known.progress = None
        member = known.members[known.turn % len(known.members)]
        known.turn += 1
        try:
            answer = workers.send(member, b"%d" % progress.next, 1000)
        except Err as error:
            # It may have been done or not, so jobs must bear to be done twice.
            log(Level.WARN, f"job {progress.next} by {member} came to nothing: {error.value}")
            known.progress = progress
            return
        log(Level.INFO, f"job {progress.next}: {answer.decode(errors='replace')}")
        known.progress = save(progress.next + 1, progress.version)


class Worker(exports.Worker):
    def handle(self, task: Task) -> bytes:
        # An Err is an answer; any other exception costs the instance.
        if not task.payload.isdigit():
            raise Err("not a job: a number is wanted")
        return f"{GREETING} from {cluster.this().id}".encode()


class Lifecycle(exports.Lifecycle):
    def on_elected(self, leadership: Leadership) -> None:
        log(Level.INFO, f"leads, epoch {leadership.epoch}")
        if leadership.cause != Cause.SWAP:
            known.progress = None

    def on_demoted(self, reason: DemotionReason) -> None:
        log(Level.INFO, f"leads no more: {reason}")

    def on_members_changed(self, membership: Membership) -> None:
        staying = [member for member in known.members if member not in membership.left]
        known.members = staying + [member.id for member in membership.joined]


class Handover(exports.Handover):
    # Begins with the version of this format, so that later releases can tell it from theirs.
    def snapshot(self) -> bytes:
        progress = asdict(known.progress) if known.progress else None
        return json.dumps({"format": 1, "progress": progress}).encode()

    def restore(self, state: bytes) -> None:
        try:
            handed = json.loads(state)
        except ValueError:
            raise Err("the state handed over is no JSON") from None
        if handed.get("format") != 1:
            raise Err(f"not a state of version 1: {handed}")
        known.progress = Progress(**handed["progress"]) if handed["progress"] else None
