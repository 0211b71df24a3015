// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"

	"kontor/registry"
)

// Roles of API keys. All of them may read everything but the API keys.
const (
	// RegistrationOfficer admits members, subsystems and security servers.
	RegistrationOfficer = "registration-officer"
	// SecurityOfficer decides on trust: certification services, time-stamping
	// authorities, signing keys, federation partners.
	SecurityOfficer = "security-officer"
	// SystemAdministrator sets parameters and member classes, and gives out API keys.
	SystemAdministrator = "system-administrator"
	// Observer only reads.
	Observer = "observer"
)

// Roles are all roles.
func Roles() []string {
	return []string{RegistrationOfficer, SecurityOfficer, SystemAdministrator, Observer}
}

// about tells what a change is about, so that two changes of the same thing can
// be told from changes that do not concern each other, and whose decision it
// is. A change that is unknown here concerns everything and is for nobody.
func about(c registry.Change) (subject, role string) {
	switch c := c.(type) {
	case *registry.FoundInstance, *registry.SetSystem:
		return "system", SystemAdministrator
	case *registry.SetNode:
		return "node " + c.Node, SystemAdministrator
	case *registry.RemoveNode:
		return "node " + c.Node, SystemAdministrator
	case *registry.SetMemberClass:
		return "class " + c.Code, SystemAdministrator
	case *registry.DeleteMemberClass:
		return "class " + c.Code, SystemAdministrator

	case *registry.AddMember:
		return "member " + c.Member.String(), RegistrationOfficer
	case *registry.RenameMember:
		return "member " + c.Member.String(), RegistrationOfficer
	case *registry.DeleteMember:
		return "member " + c.Member.String(), RegistrationOfficer
	case *registry.AddSubsystem:
		return "subsystem " + c.Subsystem.String(), RegistrationOfficer
	case *registry.RenameSubsystem:
		return "subsystem " + c.Subsystem.String(), RegistrationOfficer
	case *registry.DeleteSubsystem:
		return "subsystem " + c.Subsystem.String(), RegistrationOfficer
	case *registry.SetGroup:
		return "group " + c.Code, RegistrationOfficer
	case *registry.DeleteGroup:
		return "group " + c.Code, RegistrationOfficer
	case *registry.AddGroupMember:
		return "group " + c.Group, RegistrationOfficer
	case *registry.RemoveGroupMember:
		return "group " + c.Group, RegistrationOfficer
	case *registry.AddServer:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.SetServerAddress:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.SetMaintenance:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.DeleteServer:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.RegisterCertificate:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.UnregisterCertificate:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.RegisterClient:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.EnableClient:
		return "server " + c.Server.String(), RegistrationOfficer
	case *registry.UnregisterClient:
		return "server " + c.Server.String(), RegistrationOfficer

	case *registry.SetCA:
		return "ca " + c.CA.Name, SecurityOfficer
	case *registry.DeleteCA:
		return "ca " + c.Name, SecurityOfficer
	case *registry.SetTSA:
		return "tsa " + c.TSA.Name, SecurityOfficer
	case *registry.DeleteTSA:
		return "tsa " + c.Name, SecurityOfficer
	case *registry.TrustAnchor:
		return "anchor " + c.Instance, SecurityOfficer
	case *registry.DistrustAnchor:
		return "anchor " + c.Instance, SecurityOfficer
	case *registry.AddKey:
		return fmt.Sprintf("keys %s", c.Source), SecurityOfficer
	case *registry.ActivateKey:
		return fmt.Sprintf("keys %s", c.Source), SecurityOfficer
	case *registry.RetireKey:
		return fmt.Sprintf("keys %s", c.Source), SecurityOfficer

	case *registry.ChangeOwner:
		return "server " + c.Server.String(), RegistrationOfficer
	}
	if number, ok := registry.RequestOf(c); ok {
		return requestSubject(number), RegistrationOfficer
	}
	return "", ""
}

func requestSubject(number uint64) string { return fmt.Sprintf("request %d", number) }
