"""The sums, in Python. What they are is in ../README.md; what each function is for, in ../../wit."""

import re
from dataclasses import dataclass, field

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.exports.lifecycle import Cause, DemotionReason, Leadership, Membership
from wit_world.exports.worker import Task
from wit_world.imports import cluster, logging, state, store, workers
from wit_world.imports.logging import Level
from wit_world.imports.types import Member
from wit_world.imports.workers import Assignment

MOST_JOBS = 1_000_000
MOST_TOTAL = 10**18


def number(text: str, least: int, most: int) -> int | None:
    """Decimal digits and nothing else: `int` alone would take signs, underscores and the digits of other scripts."""
    if not re.fullmatch("[0-9]{1,20}", text) or not least <= int(text) <= most:
        return None
    return int(text)


def setting(key: str, default: int, most: int) -> int:
    try:
        text = store.get(key)
    except Err as error:
        raise Err(f"the settings cannot be read: {words(error.value)}") from None
    value = default if text is None else number(text, 1, most)
    if value is None:
        raise Err(f'the setting {key} is "{text}": a number from 1 to {most} is wanted')
    return value


def words(case: object) -> str:
    """A case of a variant, such as `Error_StaleEpoch(9)`, as the contract has it: `stale-epoch: 9`."""
    name = re.sub("(?<!^)(?=[A-Z])", "-", type(case).__name__.partition("_")[2]).lower()
    if not hasattr(case, "value"):
        return name
    return f"{name}: {'none' if case.value is None else case.value}"


def log(level: Level, message: str) -> None:
    logging.log(level, "sums", message)


@dataclass
class Progress:
    next: int = 1
    total: int = 0
    again: list[int] = field(default_factory=list)
    version: int | None = None
    unsaved: int = 0

    def fields(self) -> list[object]:
        return [self.next, self.total, *self.again]

    @classmethod
    def of(cls, fields: list[str]) -> "Progress | None":
        if len(fields) < 2:
            return None
        first = number(fields[0], 1, MOST_JOBS + 1)
        total = number(fields[1], 0, MOST_TOTAL)
        if first is None or total is None:
            return None
        again = [number(text, 1, first - 1) for text in fields[2:]]
        return None if None in again else cls(first, total, again)


class Guest:
    """What an instance knows."""

    leading = False
    progress: Progress | None = None
    members: dict[str, int] = {}
    until = save_every = timeout_ms = 0

    def read_settings(self) -> None:
        self.until = setting("until", MOST_JOBS, MOST_JOBS)
        self.save_every = setting("save_every", 1, MOST_JOBS)
        self.timeout_ms = setting("timeout_ms", 1000, 60_000)

    def load(self) -> Progress:
        try:
            entry = state.get("total")
        except Err as error:
            raise Err(f"the total cannot be read: {words(error.value)}") from None
        if entry is None:
            return Progress()
        version, *fields = entry.value.decode("ascii", "replace").split(" ")
        progress = Progress.of(fields[1:]) if version == "1" else None
        if progress is None:
            raise Err("the total in the state is not of version 1")
        progress.version = entry.version
        return progress

    def tick(self) -> None:
        progress = self.progress = self.progress or self.load()
        takers = [member for member, capacity in sorted(self.members.items()) for _ in range(capacity)]
        wanted = [*progress.again, *range(progress.next, min(self.until, progress.next + len(takers) - 1) + 1)]
        given = list(zip(wanted, takers))
        if given:
            self.hand_out(progress, given)
        finished = progress.next > self.until and not progress.again
        if progress.unsaved >= self.save_every or (progress.unsaved and finished):
            self.save(progress)
            if finished:
                log(Level.INFO, f"finished: {self.until} jobs, total {progress.total}")

    def hand_out(self, progress: Progress, given: list[tuple[int, str]]) -> None:
        work = [Assignment(member, b"square %d" % job) for job, member in given]
        answers = workers.scatter(work, self.timeout_ms)
        progress.again = progress.again[len(given) :]
        progress.next = max(progress.next, given[-1][0] + 1)
        for (job, member), answer in zip(given, answers):
            match answer:
                case Ok(value):
                    square = number(value.decode("ascii", "replace"), 0, MOST_JOBS**2)
                    why = "not an answer"
                case Err(error):
                    square, why = None, words(error)
            if square is None:
                log(Level.WARN, f"job {job} by {member}: {why}")
                progress.again.append(job)
            else:
                progress.total += square
        progress.again.sort()
        progress.unsaved += 1
        log(Level.DEBUG, f"jobs {' '.join(str(job) for job, _ in given)}: total {progress.total}")

    def save(self, progress: Progress) -> None:
        held = progress.version
        expect = state.Expectation_Absent() if held is None else state.Expectation_Version(held)
        value = " ".join(map(str, [1, "python", *progress.fields()]))
        try:
            progress.version = state.put("total", value.encode(), expect)
        except Err as error:
            # What is there now is unknown: the next tick reads it.
            self.progress = None
            raise Err(f"the total was not saved: {words(error.value)}") from None
        progress.unsaved = 0


guest = Guest()


def capacity(member: Member) -> int:
    given = number(dict(member.labels).get("capacity", "1"), 0, 9)
    return 1 if given is None else given


class Lifecycle(exports.Lifecycle):
    def on_elected(self, leadership: Leadership) -> None:
        guest.read_settings()
        if leadership.cause != Cause.SWAP:
            guest.progress = None
        guest.leading = True
        cause = leadership.cause.name.lower()
        log(Level.INFO, f"{cluster.this().id} leads, epoch {leadership.epoch}, by {cause}")

    def on_demoted(self, reason: DemotionReason) -> None:
        guest.leading = False
        guest.progress = None
        log(Level.INFO, f"demoted: {words(reason)}")

    def on_members_changed(self, membership: Membership) -> None:
        for member in membership.joined + membership.changed:
            guest.members[member.id] = capacity(member)
        for member in membership.left:
            guest.members.pop(member, None)
        known = " ".join(f"{member}*{capacity}" for member, capacity in sorted(guest.members.items()))
        log(Level.INFO, f"members, version {membership.version}: {known or 'none'}")


class Ticker(exports.Ticker):
    def on_tick(self) -> None:
        if guest.leading:
            guest.tick()


class Worker(exports.Worker):
    def handle(self, task: Task) -> bytes:
        verb, _, argument = task.payload.decode("ascii", "replace").partition(" ")
        job = number(argument, 0, 2**32 - 1) if verb == "square" else None
        if job is None:
            raise Err('not a job: "square N" is wanted, N from 0 to 4294967295')
        term = "no epoch" if task.epoch is None else f"epoch {task.epoch}"
        log(Level.DEBUG, f"square {job} for {task.sender}, {term}")
        return b"%d" % (job * job)


class Handover(exports.Handover):
    def snapshot(self) -> bytes:
        progress = guest.progress
        if progress is None:
            return b"1"
        version = "-" if progress.version is None else progress.version
        return " ".join(map(str, [1, version, progress.unsaved, *progress.fields()])).encode()

    def restore(self, state: bytes) -> None:
        fields = state.decode("ascii", "replace").split(" ")
        if fields == ["1"]:
            guest.progress = None
            return
        progress = None
        if len(fields) > 3 and fields[0] == "1":
            progress = Progress.of(fields[3:])
            version = None if fields[1] == "-" else number(fields[1], 0, 2**32 - 1)
            unsaved = number(fields[2], 0, 2**32 - 1)
            if unsaved is None or (version is None and fields[1] != "-"):
                progress = None
        if progress is None:
            raise Err("the state handed over is not of version 1")
        progress.version, progress.unsaved = version, unsaved
        guest.progress = progress
