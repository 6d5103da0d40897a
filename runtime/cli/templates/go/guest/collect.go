package guest

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Go's collector looks at clocks and timers, and those are imports. When it starts by itself, that may be while the runtime puts
// the arguments of a callback into our memory, and there a component must not call any import: the instance traps, "cannot leave component
// instance". So it starts only where we say, at the end of a callback.
func init() {
	debug.SetGCPercent(-1)
}

// How much may be allocated between two collections.
const allowance = 4 << 20

var (
	heap    = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	least   uint64
	counted bool
)

// collect is to be deferred by each export.
func collect() {
	metrics.Read(heap)
	now := heap[0].Value.Uint64()
	if counted && now < least+max(least, allowance) {
		return
	}
	runtime.GC()
	metrics.Read(heap)
	least, counted = heap[0].Value.Uint64(), true
}
