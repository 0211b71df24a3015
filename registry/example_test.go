// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"os"

	"kontor/registry"
)

func ExamplePlan() {
	eco, err := registry.ParseEcosystem([]byte(`
instance: DEV
settings:
  managementProvider: DEV/GOV/1234/MANAGEMENT
memberClasses:
  - {code: GOV, description: Government}
members:
  - class: GOV
    code: 1234
    name: Board
    subsystems:
      - {code: MANAGEMENT, name: Management services}
securityServers:
  - id: DEV/GOV/1234/SS0
    address: ss0.example
    clients: [DEV/GOV/1234/MANAGEMENT]
`), os.ReadFile)
	if err != nil {
		panic(err)
	}
	state, err := registry.NewState(&registry.FoundInstance{Instance: "DEV"}, &registry.SetSystem{System: system()})
	if err != nil {
		panic(err)
	}
	changes, err := registry.Plan(state, eco)
	if err != nil {
		panic(err)
	}
	for _, c := range changes {
		fmt.Println(c)
	}
	// Output:
	// set member class GOV (Government)
	// add member DEV/GOV/1234 (Board)
	// add subsystem DEV/GOV/1234/MANAGEMENT (Management services)
	// add security server DEV/GOV/1234/SS0 at ss0.example
	// register client DEV/GOV/1234/MANAGEMENT at security server DEV/GOV/1234/SS0
	// set system parameters
}
