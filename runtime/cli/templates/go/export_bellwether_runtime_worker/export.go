// Package export_bellwether_runtime_worker is where the bindings look for the exports of `worker`.
package export_bellwether_runtime_worker

import "wit_component/guest"

var (
	Handle = guest.Handle
)
