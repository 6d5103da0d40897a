// Package export_bellwether_runtime_lifecycle is where the bindings look for the exports of `lifecycle`.
package export_bellwether_runtime_lifecycle

import "wit_component/guest"

var (
	OnElected        = guest.OnElected
	OnDemoted        = guest.OnDemoted
	OnMembersChanged = guest.OnMembersChanged
)
