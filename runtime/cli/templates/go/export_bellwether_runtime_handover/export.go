// Package export_bellwether_runtime_handover is where the bindings look for the exports of `handover`.
package export_bellwether_runtime_handover

import "wit_component/guest"

var (
	Snapshot = guest.Snapshot
	Restore  = guest.Restore
)
