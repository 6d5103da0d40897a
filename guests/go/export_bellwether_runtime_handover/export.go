// Package export_bellwether_runtime_handover is where the bindings look for the exports of `handover`.
package export_bellwether_runtime_handover

import "wit_component/sums"

var (
	Snapshot = sums.Snapshot
	Restore  = sums.Restore
)
