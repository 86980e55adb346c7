package engine

import "context"

// fakeGroup is Kafka's admin side.
type fakeGroup struct{ w *world }

func (g fakeGroup) Look(_ context.Context, epochs map[int32]int32) (map[int32]Look, error) {
	g.w.mu.Lock()
	out := map[int32]Look{}
	for p := range epochs {
		o, ok := g.w.offsets[p]
		out[p] = Look{HasOffset: ok, Offset: o.at, Ours: o.ours, LogStart: g.w.logStart[p], LogEnd: int64(len(g.w.logs[p])), EpochEnd: -1}
	}
	g.w.looks++
	g.w.say("look")
	n, hook := g.w.looks, g.w.lookHook
	g.w.mu.Unlock()
	if hook != nil {
		hook(n)
	}
	return out, nil
}

func (g fakeGroup) FenceAbsent(context.Context, []string) ([]string, error) { return nil, nil }

func (g fakeGroup) ScanOutputs(_ context.Context, ps []int32) (map[int32]int64, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	out := map[int32]int64{}
	for _, p := range ps {
		for _, m := range g.w.out[p] {
			out[p] = max(out[p], m.SourceOffset+1)
		}
	}
	return out, nil
}

func (g fakeGroup) StartOffsets(context.Context) (map[int32]int64, error) {
	return map[int32]int64{}, nil
}

func (g fakeGroup) TopicIDs(context.Context) (map[string]string, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return map[string]string{"in": g.w.ids["in"], "out": g.w.ids["out"], "dlq": g.w.ids["dlq"]}, nil
}

func (g fakeGroup) Unowned(context.Context) ([]int32, bool, error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.unowned, !g.w.rebalancing, nil
}

func (g fakeGroup) Leave(context.Context) error {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.left = true
	return nil
}
