package sums

import (
	"fmt"
	"strconv"
	"strings"

	"wit_component/bellwether_runtime_state"
)

const (
	mostJobs   = 1_000_000
	mostSquare = mostJobs * mostJobs
	mostTotal  = mostSquare * mostJobs
	mostU32    = 1<<32 - 1
)

// progress is how far the sums are.
type progress struct {
	next, total uint64
	again       []uint64 // jobs to be done again, in ascending order
	version     *uint32  // of the key `total`, as this leader left it
	unsaved     uint64   // ticks that were not saved
}

// number reads decimal digits and nothing else.
func number(text string, least, most uint64) (uint64, bool) {
	if len(text) > 20 {
		return 0, false
	}
	// Base 10 takes no underscores, and unsigned numbers have no sign.
	value, err := strconv.ParseUint(text, 10, 64)
	return value, err == nil && value >= least && value <= most
}

func parse(fields []string) (*progress, bool) {
	if len(fields) < 2 {
		return nil, false
	}
	next, nextFits := number(fields[0], 1, mostJobs+1)
	total, totalFits := number(fields[1], 0, mostTotal)
	if !nextFits || !totalFits {
		return nil, false
	}
	parsed := &progress{next: next, total: total}
	for _, field := range fields[2:] {
		job, fits := number(field, 1, next-1)
		if !fits {
			return nil, false
		}
		parsed.again = append(parsed.again, job)
	}
	return parsed, true
}

func (p *progress) String() string {
	text := fmt.Sprintf("%d %d", p.next, p.total)
	for _, job := range p.again {
		text += fmt.Sprintf(" %d", job)
	}
	return text
}

func fromState(value []byte, version uint32) (*progress, bool) {
	fields := strings.Split(string(value), " ")
	if fields[0] != "1" || len(fields) < 2 {
		return nil, false
	}
	// The second field is the language that wrote it.
	parsed, fits := parse(fields[2:])
	if fits {
		parsed.version = &version
	}
	return parsed, fits
}

func (p *progress) toState() []byte {
	return []byte("1 go " + p.String())
}

func (p *progress) expectation() bellwether_runtime_state.Expectation {
	if p.version == nil {
		return bellwether_runtime_state.MakeExpectationAbsent()
	}
	return bellwether_runtime_state.MakeExpectationVersion(*p.version)
}

func fromHandover(state []byte) (*progress, bool) {
	fields := strings.Split(string(state), " ")
	if fields[0] != "1" || len(fields) < 3 {
		return nil, false
	}
	var held *uint32
	if fields[1] != "-" {
		value, fits := number(fields[1], 0, mostU32)
		if !fits {
			return nil, false
		}
		version := uint32(value)
		held = &version
	}
	unsaved, unsavedFits := number(fields[2], 0, mostU32)
	parsed, fits := parse(fields[3:])
	if !fits || !unsavedFits {
		return nil, false
	}
	parsed.version, parsed.unsaved = held, unsaved
	return parsed, true
}

func (p *progress) toHandover() []byte {
	version := "-"
	if p.version != nil {
		version = fmt.Sprint(*p.version)
	}
	return fmt.Appendf(nil, "1 %s %d %s", version, p.unsaved, p)
}
