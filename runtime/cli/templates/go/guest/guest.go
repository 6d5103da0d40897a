// Package guest is what a node of the group does: the leader hands out one job at each tick, to one member after the other, and writes
// down how far it is; the members do the jobs. What each function is for is told in wit/deps/bellwether-runtime.
package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	witTypes "go.bytecodealliance.org/pkg/wit/types"

	"wit_component/bellwether_runtime_cluster"
	"wit_component/bellwether_runtime_lifecycle"
	"wit_component/bellwether_runtime_state"
	"wit_component/bellwether_runtime_worker"
	"wit_component/bellwether_runtime_workers"
	"wit_component/wasi_logging_logging"
)

const greeting = "hello"

// progress is how far the jobs are: what the key `next` of the group's state holds, and its version; nil if there is no such key yet.
type progress struct {
	Next    uint64
	Version *uint32
}

// What an instance knows. Its callbacks come one at a time.
var (
	members []string
	turn    int
	known   *progress
)

// The names of errors and reasons, in the order of their tags; the bindings have what more they carry.
var (
	ofState   = [...]string{"not-leader", "conflict", "bad-key", "too-large", "not-granted", "unavailable", "other"}
	ofWorkers = [...]string{
		"unknown-member", "unreachable", "timed-out", "overloaded", "stale-epoch", "failed", "too-large", "not-leader", "other",
	}
	ofDemotion = [...]string{"resigned", "lease-lost", "session-lost", "superseded", "stopping", "failed"}
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
	wasi_logging_logging.Log(level, "", fmt.Sprintf(format, values...))
}

func load() (*progress, error) {
	found := bellwether_runtime_state.Get("next")
	if found.IsErr() {
		return nil, errors.New("the progress cannot be read: " + ofState[found.Err().Tag()])
	}
	if found.Ok().IsNone() {
		return &progress{Next: 1}, nil
	}
	entry := found.Ok().Some()
	next, err := strconv.ParseUint(string(entry.Value), 10, 64)
	if err != nil {
		return nil, errors.New("the key `next` holds no number")
	}
	return &progress{next, &entry.Version}, nil
}

// save writes the progress down. It is refused if another leader has written in between.
func save(next uint64, last *uint32) (*progress, error) {
	expect := bellwether_runtime_state.MakeExpectationAbsent()
	if last != nil {
		expect = bellwether_runtime_state.MakeExpectationVersion(*last)
	}
	saved := bellwether_runtime_state.Put("next", fmt.Append(nil, next), expect)
	if saved.IsErr() {
		return nil, errors.New("the progress was not written down: " + ofState[saved.Err().Tag()])
	}
	version := saved.Ok()
	return &progress{next, &version}, nil
}

func tick() (err error) {
	if len(members) == 0 {
		return nil
	}
	now := known
	if now == nil {
		if now, err = load(); err != nil {
			return err
		}
	}
	member := members[turn%len(members)]
	turn++
	answer := bellwether_runtime_workers.Send(member, fmt.Append(nil, now.Next), 1000)
	if answer.IsErr() {
		// It may have been done or not, so jobs must bear to be done twice.
		log(wasi_logging_logging.LevelWarn, "job %d by %s came to nothing: %s", now.Next, member, ofWorkers[answer.Err().Tag()])
		known = now
		return nil
	}
	log(wasi_logging_logging.LevelInfo, "job %d: %s", now.Next, answer.Ok())
	// Should it fail, this is nil, and the next tick reads what is there.
	known, err = save(now.Next+1, now.Version)
	return err
}

// OnTick is ticker.on-tick.
func OnTick() result {
	defer collect()
	return resultOf(tick())
}

// Handle is worker.handle.
func Handle(task bellwether_runtime_worker.Task) witTypes.Result[[]uint8, string] {
	defer collect()
	if _, err := strconv.ParseUint(string(task.Payload), 10, 64); err != nil {
		return witTypes.Err[[]uint8]("not a job: a number is wanted")
	}
	return witTypes.Ok[[]uint8, string](fmt.Appendf(nil, "%s from %s", greeting, bellwether_runtime_cluster.This().Id))
}

// OnElected is lifecycle.on-elected.
func OnElected(leadership bellwether_runtime_lifecycle.Leadership) result {
	defer collect()
	log(wasi_logging_logging.LevelInfo, "leads, epoch %d", leadership.Epoch)
	if leadership.Cause != bellwether_runtime_lifecycle.CauseSwap {
		known = nil
	}
	return resultOf(nil)
}

// OnDemoted is lifecycle.on-demoted.
func OnDemoted(reason bellwether_runtime_lifecycle.DemotionReason) result {
	defer collect()
	log(wasi_logging_logging.LevelInfo, "leads no more: %s", ofDemotion[reason.Tag()])
	return resultOf(nil)
}

// OnMembersChanged is lifecycle.on-members-changed.
func OnMembersChanged(change bellwether_runtime_lifecycle.Membership) result {
	defer collect()
	members = slices.DeleteFunc(members, func(id string) bool { return slices.Contains(change.Left, id) })
	for _, member := range change.Joined {
		// A copy: a name shall not keep a whole message in memory.
		members = append(members, strings.Clone(member.Id))
	}
	return resultOf(nil)
}

// handed is what one release gives to the next. It says its version, so that later releases can tell it from theirs.
type handed struct {
	Format   int
	Progress *progress
}

// Snapshot is handover.snapshot.
func Snapshot() []uint8 {
	defer collect()
	// Numbers can always be written.
	state, _ := json.Marshal(handed{1, known})
	return state
}

// Restore is handover.restore.
func Restore(state []uint8) result {
	defer collect()
	var from handed
	if err := json.Unmarshal(state, &from); err != nil {
		return resultOf(err)
	}
	if from.Format != 1 {
		return resultOf(fmt.Errorf("not a state of version 1: %s", state))
	}
	known = from.Progress
	return resultOf(nil)
}
