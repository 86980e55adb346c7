package sim

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
)

// admin is internal/admin as the engine sees it: each method is one call that makes several requests.
type admin struct{ w *worker }

var errConnection = errors.New("sim: connection broken")

// request sends one request of a call. The client tries again by itself now and then; then the call fails.
func (a *admin) request(c *call, serve func() code, then func(code)) { a.try(c, 1, serve, then) }

func (a *admin) try(c *call, attempt int, serve func() code, then func(code)) {
	var answer code
	a.w.s.send(a.w, c, toKafka, func(reply func()) {
		answer = serve()
		reply()
	}, func(answered bool) {
		switch {
		case answered && !answer.later():
			then(answer)
		case answered:
			c.at(20*time.Millisecond, func() { a.try(c, attempt, serve, then) })
		case attempt >= 3:
			c.finish(errConnection)
		default:
			c.at(a.w.s.between(10*time.Millisecond, 250*time.Millisecond), func() { a.try(c, attempt+1, serve, then) })
		}
	})
}

// Look implements engine.Group: OffsetFetch until stable or the stable timeout, then ListOffsets and OffsetForLeaderEpoch.
func (a *admin) Look(ctx context.Context, leaderEpochs map[int32]int32) (out map[int32]engine.Look, err error) {
	ids := slices.Sorted(maps.Keys(leaderEpochs))
	out = map[int32]engine.Look{}
	s, k := a.w.s, a.w.s.k
	err = a.w.park(ctx, "look", ids[0], func(c *call) {
		until := s.now + stableTimeout
		stable := map[int32]committed{}
		var read func()
		ends := func() {
			a.request(c, func() code {
				for _, p := range ids {
					o, is := stable[p]
					if !is {
						continue
					}
					l := k.in[p]
					look := engine.Look{HasOffset: o.has, Offset: o.at, Ours: o.ours(), LogStart: l.start, LogEnd: l.end, EpochEnd: -1}
					if e := leaderEpochs[p]; e >= 0 {
						look.EpochEnd = l.endOf(e)
					}
					out[p] = look
				}
				return ok
			}, func(code) { c.finish(nil) })
		}
		missing := ids
		read = func() {
			now := map[int32]committed{}
			a.request(c, func() code {
				if k.away(1) {
					return moved
				}
				for _, p := range missing {
					if !k.pending(p) || s.cheat.unstable {
						now[p] = k.group.offsets[p]
					}
				}
				return ok
			}, func(code) {
				var left []int32
				for _, p := range missing {
					if o, is := now[p]; is {
						stable[p] = o
						s.say(a.w, "group offset", int64(p), o.at)
					} else {
						left = append(left, p)
					}
				}
				missing = left
				if len(missing) == 0 || s.now > until {
					ends()
					return
				}
				c.at(50*time.Millisecond, read)
			})
		}
		read()
	})
	return out, err
}

// endOf is where a leader epoch ended (KIP-320).
func (l *inputLog) endOf(epoch int32) int64 {
	if int(epoch) < len(l.ends) {
		return l.ends[epoch]
	}
	return l.end
}

// FenceAbsent implements engine.Group.
func (a *admin) FenceAbsent(ctx context.Context, workers []string) (fenced []string, err error) {
	if len(workers) == 0 {
		return nil, nil
	}
	s, k := a.w.s, a.w.s.k
	err = a.w.park(ctx, "fence", -1, func(c *call) {
		var listed, absent []string // a request that the client gave up may be served late: it must not change what an answer said
		var next func()
		next = func() {
			if len(absent) == 0 {
				c.finish(nil)
				return
			}
			id := absent[0]
			a.request(c, func() code {
				s.say(a.w, "fences "+id, 0, 0)
				_, code := k.initProducer(id, nil)
				return code
			}, func(code) {
				fenced = append(fenced, id)
				absent = absent[1:]
				next()
			})
		}
		a.request(c, func() code {
			if k.away(1) {
				return moved
			}
			listed = nil
			for _, id := range workers {
				if id != a.w.id && k.group.find(id) == nil {
					listed = append(listed, id)
				}
			}
			return ok
		}, func(code) {
			absent = slices.Clone(listed)
			next()
		})
	})
	return fenced, err
}

// ScanOutputs implements engine.Group: past every transaction that is open when it begins.
func (a *admin) ScanOutputs(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	found := map[int32]int64{}
	s := a.w.s
	err := a.w.park(ctx, "scan", partitions[0], func(c *call) {
		var read func()
		read = func() {
			open := false
			a.request(c, func() code {
				open = s.k.open()
				for _, p := range partitions {
					found[p] = s.truth.parts[p].lastEvent + 1
				}
				return ok
			}, func(code) {
				if open {
					c.at(100*time.Millisecond, read)
					return
				}
				c.finish(nil)
			})
		}
		read()
	})
	return found, err
}

// StartOffsets implements engine.Group: earliest.
func (a *admin) StartOffsets(ctx context.Context) (map[int32]int64, error) {
	out := map[int32]int64{}
	err := a.w.park(ctx, "start offsets", -1, func(c *call) {
		a.request(c, func() code {
			for p, l := range a.w.s.k.in {
				out[int32(p)] = l.start
			}
			return ok
		}, func(code) { c.finish(nil) })
	})
	return out, err
}

// TopicIDs implements engine.Group.
func (a *admin) TopicIDs(ctx context.Context) (ids map[string]string, err error) {
	err = a.w.park(ctx, "topic ids", -1, func(c *call) {
		a.request(c, func() code {
			ids = maps.Clone(a.w.s.k.ids)
			return ok
		}, func(code) { c.finish(nil) })
	})
	return ids, err
}

// Unowned implements engine.Group.
func (a *admin) Unowned(ctx context.Context) (unowned []int32, rests bool, err error) {
	g := &a.w.s.k.group
	err = a.w.park(ctx, "unowned", -1, func(c *call) {
		a.request(c, func() code {
			if a.w.s.k.away(1) {
				return moved
			}
			rests, unowned = !g.preparing && len(g.members) > 0, g.unowned()
			return ok
		}, func(code) { c.finish(nil) })
	})
	return unowned, rests, err
}

// Leave implements engine.Group.
func (a *admin) Leave(ctx context.Context) error {
	g := &a.w.s.k.group
	return a.w.park(ctx, "leave", -1, func(c *call) {
		a.request(c, func() code {
			if m := g.find(a.w.id); m != nil {
				g.drop(m)
			}
			return ok
		}, func(code) { c.finish(nil) })
	})
}
