// Package sums is the sums, in Go. What they are is in ../../README.md; what each function is for, in ../../../wit.
package sums

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	witTypes "go.bytecodealliance.org/pkg/wit/types"

	"wit_component/bellwether_runtime_cluster"
	"wit_component/bellwether_runtime_lifecycle"
	"wit_component/bellwether_runtime_state"
	"wit_component/bellwether_runtime_types"
	"wit_component/bellwether_runtime_worker"
	"wit_component/bellwether_runtime_workers"
	"wit_component/wasi_config_store"
	"wit_component/wasi_logging_logging"
)

// What an instance knows.
var (
	leading                     bool
	known                       *progress
	members                     = map[string]int{}
	until, saveEvery, timeoutMs uint64
)

// result is what a callback gives back.
type result = witTypes.Result[witTypes.Unit, string]

func resultOf(err error) result {
	if err != nil {
		return witTypes.Err[witTypes.Unit](err.Error())
	}
	return witTypes.Ok[witTypes.Unit, string](witTypes.Unit{})
}

func log(level wasi_logging_logging.Level, format string, values ...any) {
	wasi_logging_logging.Log(level, "sums", fmt.Sprintf(format, values...))
}

func setting(key string, usual, most uint64) (uint64, error) {
	found := wasi_config_store.Get(key)
	if found.IsErr() {
		why := found.Err()
		if why.Tag() == wasi_config_store.ErrorIo {
			return 0, fmt.Errorf("the settings cannot be read: io: %s", why.Io())
		}
		return 0, fmt.Errorf("the settings cannot be read: upstream: %s", why.Upstream())
	}
	if found.Ok().IsNone() {
		return usual, nil
	}
	text := found.Ok().Some()
	value, fits := number(text, 1, most)
	if !fits {
		return 0, fmt.Errorf("the setting %s is \"%s\": a number from 1 to %d is wanted", key, text, most)
	}
	return value, nil
}

func ofState(why bellwether_runtime_state.Error) string {
	switch why.Tag() {
	case bellwether_runtime_state.ErrorNotLeader:
		return "not-leader"
	case bellwether_runtime_state.ErrorConflict:
		if why.Conflict().IsNone() {
			return "conflict: none"
		}
		return fmt.Sprintf("conflict: %d", why.Conflict().Some())
	case bellwether_runtime_state.ErrorBadKey:
		return "bad-key: " + why.BadKey()
	case bellwether_runtime_state.ErrorTooLarge:
		return fmt.Sprintf("too-large: %d", why.TooLarge())
	case bellwether_runtime_state.ErrorNotGranted:
		return "not-granted: " + why.NotGranted()
	case bellwether_runtime_state.ErrorUnavailable:
		return "unavailable: " + why.Unavailable()
	default:
		return "other: " + why.Other()
	}
}

func ofWorkers(why bellwether_runtime_workers.Error) string {
	switch why.Tag() {
	case bellwether_runtime_workers.ErrorUnknownMember:
		return "unknown-member"
	case bellwether_runtime_workers.ErrorUnreachable:
		return "unreachable: " + why.Unreachable()
	case bellwether_runtime_workers.ErrorTimedOut:
		return "timed-out"
	case bellwether_runtime_workers.ErrorOverloaded:
		return "overloaded"
	case bellwether_runtime_workers.ErrorStaleEpoch:
		return fmt.Sprintf("stale-epoch: %d", why.StaleEpoch())
	case bellwether_runtime_workers.ErrorFailed:
		return "failed: " + why.Failed()
	case bellwether_runtime_workers.ErrorTooLarge:
		return fmt.Sprintf("too-large: %d", why.TooLarge())
	case bellwether_runtime_workers.ErrorNotLeader:
		return "not-leader"
	default:
		return "other: " + why.Other()
	}
}

func load() (*progress, error) {
	found := bellwether_runtime_state.Get("total")
	if found.IsErr() {
		return nil, errors.New("the total cannot be read: " + ofState(found.Err()))
	}
	if found.Ok().IsNone() {
		return &progress{next: 1}, nil
	}
	entry := found.Ok().Some()
	loaded, fits := fromState(entry.Value, entry.Version)
	if !fits {
		return nil, errors.New("the total in the state is not of version 1")
	}
	return loaded, nil
}

func sorted() []string {
	return slices.Sorted(maps.Keys(members))
}

// work is a job and who shall do it.
type work struct {
	job uint64
	to  string
}

func tick() error {
	if known == nil {
		loaded, err := load()
		if err != nil {
			return err
		}
		known = loaded
	}
	var given []work
	next := known.next
	for _, id := range sorted() {
		for range members[id] {
			if len(given) < len(known.again) {
				given = append(given, work{known.again[len(given)], id})
			} else if next <= until {
				given = append(given, work{next, id})
				next++
			}
		}
	}
	if len(given) > 0 {
		handOut(given)
	}
	finished := known.next > until && len(known.again) == 0
	if known.unsaved < saveEvery && (known.unsaved == 0 || !finished) {
		return nil
	}
	saving := known
	// Should it fail, what is there is unknown: the next tick reads it.
	known = nil
	saved := bellwether_runtime_state.Put("total", saving.toState(), saving.expectation())
	if saved.IsErr() {
		return errors.New("the total was not saved: " + ofState(saved.Err()))
	}
	version := saved.Ok()
	saving.version, saving.unsaved = &version, 0
	known = saving
	if finished {
		log(wasi_logging_logging.LevelInfo, "finished: %d jobs, total %d", until, known.total)
	}
	return nil
}

func handOut(given []work) {
	var assignments []bellwether_runtime_workers.Assignment
	for _, work := range given {
		payload := fmt.Appendf(nil, "square %d", work.job)
		assignments = append(assignments, bellwether_runtime_workers.Assignment{To: work.to, Payload: payload})
	}
	answers := bellwether_runtime_workers.Scatter(assignments, uint32(timeoutMs))
	known.again = known.again[min(len(given), len(known.again)):]
	jobs := ""
	for i, work := range given {
		known.next = max(known.next, work.job+1)
		jobs += fmt.Sprintf(" %d", work.job)
		why := "not an answer"
		if answers[i].IsErr() {
			why = ofWorkers(answers[i].Err())
		} else if square, fits := number(string(answers[i].Ok()), 0, mostSquare); fits {
			known.total += square
			continue
		}
		log(wasi_logging_logging.LevelWarn, "job %d by %s: %s", work.job, work.to, why)
		known.again = append(known.again, work.job)
	}
	slices.Sort(known.again)
	known.unsaved++
	log(wasi_logging_logging.LevelDebug, "jobs%s: total %d", jobs, known.total)
}

func capacity(member bellwether_runtime_types.Member) int {
	for _, label := range member.Labels {
		if value := label.F1; label.F0 == "capacity" && len(value) == 1 && value[0] >= '0' && value[0] <= '9' {
			return int(value[0] - '0')
		}
	}
	return 1
}

// OnElected is lifecycle.on-elected.
func OnElected(leadership bellwether_runtime_lifecycle.Leadership) result {
	defer collect()
	jobs, err := setting("until", mostJobs, mostJobs)
	if err != nil {
		return resultOf(err)
	}
	every, err := setting("save_every", 1, mostJobs)
	if err != nil {
		return resultOf(err)
	}
	wait, err := setting("timeout_ms", 1000, 60_000)
	if err != nil {
		return resultOf(err)
	}
	until, saveEvery, timeoutMs = jobs, every, wait
	if leadership.Cause != bellwether_runtime_lifecycle.CauseSwap {
		known = nil
	}
	leading = true
	cause := [...]string{"election", "swap", "restart"}[leadership.Cause]
	id := bellwether_runtime_cluster.This().Id
	log(wasi_logging_logging.LevelInfo, "%s leads, epoch %d, by %s", id, leadership.Epoch, cause)
	return resultOf(nil)
}

// OnDemoted is lifecycle.on-demoted.
func OnDemoted(reason bellwether_runtime_lifecycle.DemotionReason) result {
	defer collect()
	leading, known = false, nil
	words := [...]string{"resigned", "lease-lost", "session-lost", "superseded", "stopping", "failed: "}[reason.Tag()]
	if reason.Tag() == bellwether_runtime_lifecycle.DemotionReasonFailed {
		words += reason.Failed()
	}
	log(wasi_logging_logging.LevelInfo, "demoted: %s", words)
	return resultOf(nil)
}

// OnMembersChanged is lifecycle.on-members-changed.
func OnMembersChanged(change bellwether_runtime_lifecycle.Membership) result {
	defer collect()
	for _, member := range slices.Concat(change.Joined, change.Changed) {
		// A copy: a name shall not keep a whole message in memory.
		members[strings.Clone(member.Id)] = capacity(member)
	}
	for _, id := range change.Left {
		delete(members, id)
	}
	list := ""
	for _, id := range sorted() {
		list += fmt.Sprintf(" %s*%d", id, members[id])
	}
	if list == "" {
		list = " none"
	}
	log(wasi_logging_logging.LevelInfo, "members, version %d:%s", change.Version, list)
	return resultOf(nil)
}

// OnTick is ticker.on-tick.
func OnTick() result {
	defer collect()
	if !leading {
		return resultOf(nil)
	}
	return resultOf(tick())
}

// Handle is worker.handle.
func Handle(task bellwether_runtime_worker.Task) witTypes.Result[[]uint8, string] {
	defer collect()
	argument, isJob := strings.CutPrefix(string(task.Payload), "square ")
	job, fits := number(argument, 0, mostU32)
	if !isJob || !fits {
		return witTypes.Err[[]uint8]("not a job: \"square N\" is wanted, N from 0 to 4294967295")
	}
	term := "no epoch"
	if task.Epoch.IsSome() {
		term = fmt.Sprintf("epoch %d", task.Epoch.Some())
	}
	log(wasi_logging_logging.LevelDebug, "square %d for %s, %s", job, task.Sender, term)
	return witTypes.Ok[[]uint8, string](fmt.Append(nil, job*job))
}

// Snapshot is handover.snapshot.
func Snapshot() []uint8 {
	defer collect()
	if known == nil {
		return []byte("1")
	}
	return known.toHandover()
}

// Restore is handover.restore.
func Restore(state []uint8) result {
	defer collect()
	if string(state) == "1" {
		known = nil
		return resultOf(nil)
	}
	restored, fits := fromHandover(state)
	if !fits {
		return resultOf(errors.New("the state handed over is not of version 1"))
	}
	known = restored
	return resultOf(nil)
}
