package sim

import (
	"math/bits"
	"slices"
	"time"

	"github.com/exactly-pipeline/exactly/txn"
)

// parts is a set of partitions.
type parts uint32

func (p parts) has(i int32) bool { return p&(1<<i) != 0 }
func (p parts) count() int       { return bits.OnesCount32(uint32(p)) }
func (p parts) list() []int32 {
	var out []int32
	for i := range int32(32) {
		if p.has(i) {
			out = append(out, i)
		}
	}
	return out
}

// stamp is a consumer's group metadata.
type stamp struct {
	instance, member string
	generation       int
}

// committed is a group offset.
type committed struct {
	has      bool
	at       int64
	metadata string
	expired  bool // it was there once
}

// member is a static member as the coordinator knows it.
type member struct {
	instance, id string
	seen         time.Duration // last heard of
	owned        parts         // as it said when it joined
	assigned     parts
	answer       func(generation int, assigned parts) // of the join it waits in; nil: it is not waiting
	refuse       func(code)                           // likewise
}

// group is the classic group coordinator (ClassicGroup, KIP-345 static members, KIP-429 cooperative): generations, members, offsets.
type group struct {
	s          *sim
	generation int
	preparing  bool
	notBefore  time.Duration // the rebalance does not end before: the first members are waited for
	members    []*member     // by instance id
	last       [32]string    // who was last assigned a partition
	offsets    []committed
	ids        int
}

func (g *group) find(instance string) *member {
	for _, m := range g.members {
		if m.instance == instance {
			return m
		}
	}
	return nil
}

func (g *group) drop(m *member) {
	g.members = slices.DeleteFunc(g.members, func(x *member) bool { return x == m })
	g.s.say(nil, "group drops "+m.instance, int64(g.generation), 0)
	m.fenced(unknownMember)
	if !g.preparing {
		g.prepare()
	} else {
		g.maybeComplete()
	}
}

// fenced ends the join that a member waits in.
func (m *member) fenced(why code) {
	if m.answer != nil {
		m.answer = nil
		m.refuse(why)
	}
}

// join is JoinGroup and SyncGroup in one. refuse answers at once.
func (g *group) join(instance, id string, owned parts, answer func(id string, generation int, assigned parts), refuse func(code)) {
	m := g.find(instance)
	switch {
	case id == "" && m != nil: // a process has come again under the instance id: what it was before is fenced
		g.ids++
		m.id = nameOf(instance, g.ids)
		m.fenced(fencedInstance)
		m.seen, m.owned = g.s.now, 0
		if !g.preparing { // KIP-345: no rebalance for it, also where something was taken from what it was before and given to nobody yet
			answer(m.id, g.generation, m.assigned)
			return
		}
	case id == "":
		if len(g.members) == 0 { // group.initial.rebalance.delay.ms
			g.notBefore, g.preparing = g.s.now+500*time.Millisecond, false
		}
		g.ids++
		m = &member{instance: instance, id: nameOf(instance, g.ids), seen: g.s.now}
		g.members = append(g.members, m)
		slices.SortFunc(g.members, func(a, b *member) int {
			if a.instance < b.instance {
				return -1
			}
			return 1
		})
		g.expiry(m)
	case m == nil:
		refuse(unknownMember)
		return
	case m.id != id:
		refuse(fencedInstance)
		return
	}
	m.seen, m.owned = g.s.now, owned
	mid := m.id
	if !g.preparing {
		g.prepare()
	}
	m.answer, m.refuse = func(generation int, assigned parts) { answer(mid, generation, assigned) }, refuse
	g.maybeComplete()
}

// unowned are the partitions that no member has.
func (g *group) unowned() []int32 {
	none := parts(1)<<g.s.p.partitions - 1
	for _, m := range g.members {
		none &^= m.assigned
	}
	return none.list()
}

func nameOf(instance string, n int) string {
	return instance + "-" + string(rune('0'+n/100%10)) + string(rune('0'+n/10%10)) + string(rune('0'+n%10))
}

func (g *group) prepare() {
	g.preparing = true
	for _, m := range g.members {
		m.answer = nil
	}
	if g.notBefore > g.s.now {
		g.s.at(g.notBefore-g.s.now, nil, nil, g.maybeComplete)
	}
}

// maybeComplete ends the rebalance when every member has joined it.
func (g *group) maybeComplete() {
	if !g.preparing || g.s.now < g.notBefore {
		return
	}
	for _, m := range g.members {
		if m.answer == nil {
			return
		}
	}
	g.preparing = false
	g.generation++
	g.assign()
	g.s.say(nil, "group generation", int64(g.generation), int64(len(g.members)))
	for _, m := range g.members {
		m.seen = g.s.now
		answer := m.answer
		m.answer = nil
		answer(g.generation, m.assigned)
	}
}

// assign is cooperative-sticky: everybody keeps what it has, up to its share; what is to move is first taken away, and given out in the
// rebalance after.
func (g *group) assign() {
	n := len(g.members)
	if n == 0 {
		return
	}
	total := g.s.p.partitions
	var claimed parts
	for p := range int32(total) {
		var owner *member
		for _, m := range g.members {
			if m.owned.has(p) && (owner == nil || g.last[p] == m.instance) {
				owner = m
			}
		}
		for _, m := range g.members {
			if m != owner {
				m.owned &^= 1 << p
			}
		}
		if owner != nil {
			claimed |= 1 << p
		}
	}
	by := slices.Clone(g.members)
	slices.SortStableFunc(by, func(a, b *member) int { return b.owned.count() - a.owned.count() })
	for i, m := range by {
		share := total / n
		if i < total%n {
			share++
		}
		m.assigned = 0
		for p := range int32(total) {
			if m.owned.has(p) && m.assigned.count() < share {
				m.assigned |= 1 << p
			}
		}
	}
	for p := range int32(total) {
		if claimed.has(p) {
			continue
		}
		least := by[0]
		for _, m := range by {
			if m.assigned.count() < least.assigned.count() {
				least = m
			}
		}
		least.assigned |= 1 << p
	}
	for _, m := range g.members {
		for p := range int32(total) {
			if m.assigned.has(p) {
				g.last[p] = m.instance
			}
		}
	}
}

// quiet says that nothing moves, nor is about to: each member is a living process that has what it was assigned, and none is about to end.
func (g *group) quiet() bool {
	if g.preparing || slices.ContainsFunc(g.s.workers, func(w *worker) bool { return !w.dead && w.ending }) {
		return false
	}
	for _, m := range g.members {
		i := slices.IndexFunc(g.s.workers, func(w *worker) bool { return !w.dead && w.client != nil && w.client.member == m.id })
		if i < 0 {
			return false
		}
		if c := g.s.workers[i].client; c.joining || c.serving || c.owned != m.assigned {
			return false
		}
	}
	return true
}

func (g *group) heartbeat(instance, id string, generation int) code {
	m := g.find(instance)
	switch {
	case m == nil:
		return unknownMember
	case m.id != id:
		return fencedInstance
	case !g.preparing && generation != g.generation:
		return illegalGeneration
	}
	m.seen = g.s.now
	if g.preparing {
		return rebalanceInProgress
	}
	return ok
}

// expiry watches a member's session. One that waits in a join is alive.
func (g *group) expiry(m *member) {
	g.s.at(m.seen+sessionTimeout-g.s.now, nil, nil, func() {
		switch {
		case g.find(m.instance) != m:
		case m.answer != nil || m.seen+sessionTimeout > g.s.now:
			if m.answer != nil {
				m.seen = g.s.now
			}
			g.expiry(m)
		default:
			g.drop(m)
		}
	})
}

// validate is ClassicGroup.validateOffsetCommit for a transactional commit: member and generation, not who owns the partition. Without
// either, nothing is validated.
func (g *group) validate(st *stamp) code {
	if st.member == "" && st.generation < 0 && st.instance == "" {
		return ok
	}
	m := g.find(st.instance)
	switch {
	case m == nil:
		return unknownMember
	case m.id != st.member:
		return fencedInstance
	case st.generation != g.generation:
		return illegalGeneration
	}
	return ok
}

// ours says whether an offset carries our metadata.
func (c *committed) ours() bool { return c.has && txn.IsOurs(c.metadata) }
