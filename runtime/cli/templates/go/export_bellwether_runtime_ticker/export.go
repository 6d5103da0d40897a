// Package export_bellwether_runtime_ticker is where the bindings look for the exports of `ticker`.
package export_bellwether_runtime_ticker

import "wit_component/guest"

var (
	OnTick = guest.OnTick
)
