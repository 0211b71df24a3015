// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"strings"

	"kontor/registry/id"
)

// Change is one step from a state to the next: one of the types of this
// package. String says it for people, as "add member DEV/GOV/1234 (Board)".
type Change interface {
	fmt.Stringer
	// op names the change in the journal, for ever.
	op() string
	// check refuses what may not be newly accepted although it could be
	// applied: characters, lengths, certificates of the wrong kind.
	check(*State) error
	// apply alters the state, or refuses and leaves it as it was. It depends on
	// the state alone and keeps references whole, so that the journal can be
	// folded again at any time.
	apply(*State) error
}

// emptyChanges makes an empty change for each name in the journal.
var emptyChanges = index(
	of[FoundInstance](),
	of[SetSystem](),
	of[AddKey](),
	of[ActivateKey](),
	of[RetireKey](),
	of[SetNode](),
	of[RemoveNode](),
	of[SetMemberClass](),
	of[DeleteMemberClass](),
	of[AddMember](),
	of[RenameMember](),
	of[DeleteMember](),
	of[AddSubsystem](),
	of[RenameSubsystem](),
	of[DeleteSubsystem](),
	of[AddServer](),
	of[SetServerAddress](),
	of[SetMaintenance](),
	of[DeleteServer](),
	of[RegisterCertificate](),
	of[UnregisterCertificate](),
	of[RegisterClient](),
	of[EnableClient](),
	of[UnregisterClient](),
	of[SetGroup](),
	of[DeleteGroup](),
	of[AddGroupMember](),
	of[RemoveGroupMember](),
	of[SetCA](),
	of[DeleteCA](),
	of[SetTSA](),
	of[DeleteTSA](),
	of[TrustAnchor](),
	of[DistrustAnchor](),
	of[ChangeOwner](),
	of[submitRequest](),
	of[settleRequest](),
)

func of[T any, P interface {
	*T
	Change
}]() func() Change {
	return func() Change { return P(new(T)) }
}

func index(all ...func() Change) map[string]func() Change {
	byName := make(map[string]func() Change, len(all))
	for _, empty := range all {
		byName[empty().op()] = empty
	}
	return byName
}

func newChange(op string) (Change, error) {
	if empty, ok := emptyChanges[op]; ok {
		return empty(), nil
	}
	return nil, fmt.Errorf("unknown change %q: it was written by a newer program", op)
}

// FoundInstance is the first entry of every journal.
type FoundInstance struct {
	Instance string `json:"instance"`
}

func (c *FoundInstance) op() string     { return "instance.found" }
func (c *FoundInstance) String() string { return "found instance " + c.Instance }

func (c *FoundInstance) check(*State) error {
	if strings.ContainsAny(c.Instance, `"'`) { // they delimit it in signed directories
		return refuse(c, ErrInvalid, "the instance identifier contains a quotation mark", "")
	}
	return checkCode(c, "instance identifier", c.Instance)
}

func (c *FoundInstance) apply(s *State) error {
	if s.instance != "" {
		return refuse(c, ErrExists, "this is the registry of instance "+s.instance, "")
	}
	s.instance = c.Instance
	return nil
}

// SetSystem replaces the parameters of the instance.
type SetSystem struct {
	System System `json:"system"`
}

func (c *SetSystem) op() string     { return "system.set" }
func (c *SetSystem) String() string { return "set system parameters" }

func (c *SetSystem) check(*State) error {
	p := c.System
	if why := checkAddress(p.Address, true); why != "" {
		return refuse(c, ErrInvalid, "address: "+why, "")
	}
	for _, n := range []struct {
		name          string
		value, lo, hi int
	}{
		{"configuration validity", p.ConfigurationValidity, 120, 7 * 24 * 3600},
		{"OCSP freshness", p.OCSPFreshness, 60, 30 * 24 * 3600},
		{"time-stamping interval", p.TimestampingInterval, 1, 24 * 3600},
		{"minimum configuration version", p.MinimumVersion, minVersion, maxVersion},
	} {
		if n.value < n.lo || n.value > n.hi {
			return refuse(c, ErrInvalid, fmt.Sprintf("%s %d is out of range", n.name, n.value), fmt.Sprintf("choose from %d to %d", n.lo, n.hi))
		}
	}
	if p.OCSPFetchInterval != 0 && (p.OCSPFetchInterval < 60 || p.OCSPFetchInterval > 7*24*3600) {
		return refuse(c, ErrInvalid, fmt.Sprintf("OCSP fetch interval %d is out of range", p.OCSPFetchInterval), "choose from 60 to 604800, or 0 for the default")
	}
	if p.ManagementAddress != "" {
		if why := checkURL(p.ManagementAddress, "https"); why != "" {
			return refuse(c, ErrInvalid, "management address: "+why, "")
		}
	}
	if len(p.ManagementCertificate) > 0 {
		if _, err := parseCertificate(p.ManagementCertificate); err != nil {
			return refuse(c, ErrInvalid, "management certificate: "+err.Error(), "")
		}
	}
	return nil
}

func (c *SetSystem) apply(s *State) error {
	if p := c.System.ManagementProvider; !p.IsZero() && !s.Known(p) {
		return refuse(c, ErrUnknown, fmt.Sprintf("management provider %s does not exist", p), "add it first")
	}
	if m := c.System.MonitoringClient; !m.IsZero() && !s.Known(m) {
		return refuse(c, ErrUnknown, fmt.Sprintf("monitoring client %s does not exist", m), "add it first")
	}
	if n := s.nodeAt(c.System.Address); n != nil && n.Name != "" {
		return refuse(c, ErrExists, fmt.Sprintf("the address %s is that of node %s", n.Address, n.Name), "")
	}
	if c.System.Address != s.system.Address {
		s.anchored = s.time
	}
	s.system = c.System
	return nil
}

// AddKey makes a signing key of a source known to clients: its certificate
// gets into the anchor and the shared parameters. It does not sign yet.
type AddKey struct {
	Source      Source `json:"source"`
	Certificate []byte `json:"certificate"`
	Node        string `json:"node,omitempty"` // that has the private key; empty: the first
}

func (c *AddKey) op() string { return "key.add" }
func (c *AddKey) String() string {
	return fmt.Sprintf("add %s signing key %.16s", c.Source, hashOf(c.Certificate))
}

func (c *AddKey) check(s *State) error {
	if _, err := parseCertificate(c.Certificate); err != nil {
		return refuse(c, ErrInvalid, err.Error(), "")
	}
	if n := len(s.nodeKeys(c.Node, c.Source)); n >= 10 {
		return refuse(c, ErrInvalid, fmt.Sprintf("the source has %d keys already", n), "retire one first")
	}
	return nil
}

func (c *AddKey) apply(s *State) error {
	if c.Source != Internal && c.Source != External {
		return refuse(c, ErrUnknown, fmt.Sprintf("there is no source %q", c.Source), "use internal or external")
	}
	if s.key(c.Source, hashOf(c.Certificate)) != nil {
		return refuse(c, ErrExists, "the key is there already", "")
	}
	if s.node(c.Node) == nil {
		return refuse(c, ErrUnknown, fmt.Sprintf("there is no node %s", c.Node), "join it first")
	}
	s.keys = append(s.keys, SourceKey{Source: c.Source, Node: c.Node, Certificate: c.Certificate, Added: s.time})
	s.anchored = s.time
	return nil
}

// ActivateKey makes a key the one with which its node signs its source; the key
// that did before stays known.
type ActivateKey struct {
	Source Source `json:"source"`
	Key    Hash   `json:"key"`
}

func (c *ActivateKey) op() string { return "key.activate" }
func (c *ActivateKey) String() string {
	return fmt.Sprintf("activate %s signing key %.16s", c.Source, c.Key)
}
func (c *ActivateKey) check(*State) error { return nil }

func (c *ActivateKey) apply(s *State) error {
	key := s.key(c.Source, c.Key)
	if key == nil {
		return refuse(c, ErrUnknown, "there is no such key", "")
	}
	for i := range s.keys {
		if s.keys[i].Source == c.Source && s.keys[i].Node == key.Node {
			s.keys[i].Active = false
		}
	}
	key.Active = true
	return nil
}

// RetireKey makes a key unknown to clients.
type RetireKey struct {
	Source Source `json:"source"`
	Key    Hash   `json:"key"`
}

func (c *RetireKey) op() string { return "key.retire" }
func (c *RetireKey) String() string {
	return fmt.Sprintf("retire %s signing key %.16s", c.Source, c.Key)
}
func (c *RetireKey) check(*State) error { return nil }

func (c *RetireKey) apply(s *State) error {
	key := s.key(c.Source, c.Key)
	if key == nil {
		return refuse(c, ErrUnknown, "there is no such key", "")
	}
	if key.Active {
		return refuse(c, ErrInUse, "the key signs the configuration", "activate another key first")
	}
	for i := range s.keys {
		if &s.keys[i] == key {
			s.keys = append(s.keys[:i:i], s.keys[i+1:]...)
			break
		}
	}
	s.anchored = s.time
	return nil
}

// key returns the key of a source, or nil.
func (s *State) key(src Source, hash Hash) *SourceKey {
	for i := range s.keys {
		if k := &s.keys[i]; k.Source == src && k.Hash() == hash {
			return k
		}
	}
	return nil
}

// SetMemberClass adds a member class or changes its description.
type SetMemberClass struct {
	Code        string `json:"code"`
	Description string `json:"description"`
}

func (c *SetMemberClass) op() string { return "class.set" }
func (c *SetMemberClass) String() string {
	return fmt.Sprintf("set member class %s (%s)", c.Code, c.Description)
}

func (c *SetMemberClass) check(*State) error {
	if err := checkCode(c, "member class", c.Code); err != nil {
		return err
	}
	return checkText(c, "description", c.Description, true)
}

func (c *SetMemberClass) apply(s *State) error {
	s.classes[c.Code] = c.Description
	return nil
}

// DeleteMemberClass removes a member class that no member has.
type DeleteMemberClass struct {
	Code string `json:"code"`
}

func (c *DeleteMemberClass) op() string         { return "class.delete" }
func (c *DeleteMemberClass) String() string     { return "delete member class " + c.Code }
func (c *DeleteMemberClass) check(*State) error { return nil }

func (c *DeleteMemberClass) apply(s *State) error {
	if _, ok := s.classes[c.Code]; !ok {
		return refuse(c, ErrUnknown, "there is no such member class", "")
	}
	for m := range s.members {
		if m.Class() == c.Code {
			return refuse(c, ErrInUse, fmt.Sprintf("member %s is of this class", m), "delete its members first")
		}
	}
	delete(s.classes, c.Code)
	return nil
}

// AddMember admits an organisation.
type AddMember struct {
	Member id.Member `json:"member"`
	Name   string    `json:"name"`
}

func (c *AddMember) op() string     { return "member.add" }
func (c *AddMember) String() string { return fmt.Sprintf("add member %s (%s)", c.Member, c.Name) }

func (c *AddMember) check(*State) error {
	if err := checkCode(c, "member code", c.Member.Code()); err != nil {
		return err
	}
	return checkText(c, "name", c.Name, true)
}

func (c *AddMember) apply(s *State) error {
	if c.Member.Instance() != s.instance {
		return refuse(c, ErrInvalid, fmt.Sprintf("instance %q is not the registry's own, %s", c.Member.Instance(), s.instance), "")
	}
	if _, ok := s.classes[c.Member.Class()]; !ok {
		return refuse(c, ErrUnknown, fmt.Sprintf("there is no member class %s", c.Member.Class()), "add the member class first")
	}
	if _, ok := s.members[c.Member]; ok {
		return refuse(c, ErrExists, "the member exists already", "")
	}
	s.members[c.Member] = &member{c.Name, map[string]string{}}
	return nil
}

// RenameMember changes the name that is shown for a member.
type RenameMember struct {
	Member id.Member `json:"member"`
	Name   string    `json:"name"`
}

func (c *RenameMember) op() string { return "member.rename" }
func (c *RenameMember) String() string {
	return fmt.Sprintf("rename member %s to %s", c.Member, c.Name)
}
func (c *RenameMember) check(*State) error { return checkText(c, "name", c.Name, true) }

func (c *RenameMember) apply(s *State) error {
	m, err := s.member(c, c.Member)
	if err != nil {
		return err
	}
	m.name = c.Name
	return nil
}

// DeleteMember removes a member that nothing refers to.
type DeleteMember struct {
	Member id.Member `json:"member"`
}

func (c *DeleteMember) op() string         { return "member.delete" }
func (c *DeleteMember) String() string     { return "delete member " + c.Member.String() }
func (c *DeleteMember) check(*State) error { return nil }

func (c *DeleteMember) apply(s *State) error {
	m, err := s.member(c, c.Member)
	if err != nil {
		return err
	}
	for code := range m.subsystems {
		return refuse(c, ErrInUse, fmt.Sprintf("it has subsystem %s", code), "delete its subsystems first")
	}
	for key := range s.servers {
		if key.Owner() == c.Member {
			return refuse(c, ErrInUse, fmt.Sprintf("it owns security server %s", key), "delete that server first")
		}
	}
	if err := s.unused(c, c.Member.Client()); err != nil {
		return err
	}
	delete(s.members, c.Member)
	return nil
}

// AddSubsystem adds a subsystem to a member. The name may be empty.
type AddSubsystem struct {
	Subsystem id.Client `json:"subsystem"`
	Name      string    `json:"name,omitempty"`
}

func (c *AddSubsystem) op() string { return "subsystem.add" }
func (c *AddSubsystem) String() string {
	return fmt.Sprintf("add subsystem %s (%s)", c.Subsystem, c.Name)
}

func (c *AddSubsystem) check(*State) error {
	if err := checkCode(c, "subsystem code", c.Subsystem.Subsystem()); err != nil {
		return err
	}
	return checkText(c, "name", c.Name, false)
}

func (c *AddSubsystem) apply(s *State) error {
	m, err := s.member(c, c.Subsystem.Member())
	if err != nil {
		return err
	}
	if c.Subsystem.IsMember() {
		return refuse(c, ErrInvalid, "the identifier names a member, not a subsystem", "")
	}
	if _, ok := m.subsystems[c.Subsystem.Subsystem()]; ok {
		return refuse(c, ErrExists, "the subsystem exists already", "")
	}
	m.subsystems[c.Subsystem.Subsystem()] = c.Name
	return nil
}

// RenameSubsystem changes the name that is shown for a subsystem.
type RenameSubsystem struct {
	Subsystem id.Client `json:"subsystem"`
	Name      string    `json:"name,omitempty"`
}

func (c *RenameSubsystem) op() string { return "subsystem.rename" }
func (c *RenameSubsystem) String() string {
	return fmt.Sprintf("rename subsystem %s to %s", c.Subsystem, c.Name)
}
func (c *RenameSubsystem) check(*State) error { return checkText(c, "name", c.Name, false) }

func (c *RenameSubsystem) apply(s *State) error {
	if c.Subsystem.IsMember() || !s.Known(c.Subsystem) {
		return refuse(c, ErrUnknown, "there is no such subsystem", "add it first")
	}
	s.members[c.Subsystem.Member()].subsystems[c.Subsystem.Subsystem()] = c.Name
	return nil
}

// DeleteSubsystem removes a subsystem that nothing refers to.
type DeleteSubsystem struct {
	Subsystem id.Client `json:"subsystem"`
}

func (c *DeleteSubsystem) op() string         { return "subsystem.delete" }
func (c *DeleteSubsystem) String() string     { return "delete subsystem " + c.Subsystem.String() }
func (c *DeleteSubsystem) check(*State) error { return nil }

func (c *DeleteSubsystem) apply(s *State) error {
	if c.Subsystem.IsMember() || !s.Known(c.Subsystem) {
		return refuse(c, ErrUnknown, "there is no such subsystem", "")
	}
	if err := s.unused(c, c.Subsystem); err != nil {
		return err
	}
	delete(s.members[c.Subsystem.Member()].subsystems, c.Subsystem.Subsystem())
	return nil
}

func (s *State) member(c Change, m id.Member) (*member, error) {
	got, ok := s.members[m]
	if !ok {
		return nil, refuse(c, ErrUnknown, fmt.Sprintf("there is no member %s", m), "add the member first")
	}
	return got, nil
}

// unused refuses the change if something refers to the client.
func (s *State) unused(c Change, client id.Client) error {
	for key, srv := range s.servers {
		if _, ok := srv.clients[client]; ok {
			return refuse(c, ErrInUse, fmt.Sprintf("it is a client of security server %s", key), "unregister it there first")
		}
	}
	for code, g := range s.groups {
		if g.members[client] {
			return refuse(c, ErrInUse, fmt.Sprintf("it is in global group %s", code), "remove it from the group first")
		}
	}
	if s.system.ManagementProvider == client {
		return refuse(c, ErrInUse, "it provides the management services", "name another management provider first")
	}
	if s.system.MonitoringClient == client {
		return refuse(c, ErrInUse, "it is the monitoring client", "name another monitoring client, or none, first")
	}
	return nil
}
