package audit

// sides says what of a stretch can't be there, for it was taken on purpose or by retention: what is there is held against what else there is.
type sides struct {
	noInput  bool // not looked at
	noRows   bool // pruned, all of them
	noDead   bool // dead letters, likewise
	noOutbox bool // likewise
	noEvents bool // the output topic has none of it any more
	noDLQ    bool // the DLQ topic, likewise
}

// sides of a stretch, once everything is read.
func (r *run) sides(p *partition, s *stretch) sides {
	gone := func(e extents, n int64) bool { return n == 0 && e.overlap(s.from, s.to) }
	return sides{
		noInput:  s.to <= p.from,
		noRows:   gone(p.pruned.rows, s.rows.n),
		noDead:   gone(p.pruned.dead, s.dead.n),
		noOutbox: gone(p.pruned.outbox, s.outbox.n+s.held),
		noEvents: s.clicks == 0 && !s.owed && r.outputs[r.opts.Output].allGone(p.id, s.to),
		noDLQ:    s.dlq.n == 0 && !s.owed && r.outputs[r.opts.DLQ].allGone(p.id, s.to),
	}
}

// suspicious says whether the records must be looked at one by one.
func (s *stretch) suspicious(of sides) bool {
	if s.suspect {
		return true
	}
	if s.lost {
		return s.rows.n+s.dead.n+s.outbox.n+s.held+s.events.n != 0
	}
	records, known := s.input, true
	if of.noInput {
		records, known = s.rows.n+s.dead.n, !of.noRows && !of.noDead
	}
	switch {
	case s.big < 0 && s.counts != of.counts(s):
		return true
	case !of.noInput && (s.rows.n+s.inDead.n != s.input || s.rows.wide != s.inRows || s.dead != s.inDead):
		return true
	case of.noOutbox && s.owed && records > 0: // it is gone, and Kafka does not have it
		return true
	case of.noOutbox && s.pruned != s.rows.n+s.dead.n, !of.noOutbox && s.pruned > 0:
		return true
	case !of.noOutbox && known && s.outbox.n+s.held != records:
		return true
	case !of.noOutbox && s.events != s.outbox:
		return true
	}
	// What the events and the messages held say, against what the tables do. Without an outbox nothing tells which events retention has removed: all, or none.
	if !of.noRows && !(of.noOutbox && of.noEvents) {
		if s.clicks != s.rows.n || s.full != s.rowsFull || !of.noInput && s.text != s.inText {
			return true
		}
	}
	return !of.noDead && !(of.noOutbox && of.noDLQ) && (s.dlq != s.dead || s.dlqWhy != s.deadWhy)
}

// counts are what the stretch's counts must be: what its entries say, and of what can't be counted what was.
func (of sides) counts(s *stretch) [4]uint64 {
	want := s.says
	for kind, not := range [4]bool{ofRecords: of.noInput, ofRows: of.noRows, ofDead: of.noDead, ofMessages: of.noOutbox} {
		if not {
			want[kind] = s.counts[kind]
		}
	}
	return want
}

// ofEntry are the sides of one ledger entry, whose counts are known one by one.
func (p *partition) ofEntry(from, to int64, counts [4]int64) sides {
	gone := func(e extents, kind int) bool { return counts[kind] == 0 && e.overlap(from, to) }
	return sides{noInput: from < p.from, noRows: gone(p.pruned.rows, ofRows), noDead: gone(p.pruned.dead, ofDead), noOutbox: p.pruned.outbox.overlap(from, to)}
}

// reaches says in the report from where on each side of the partition is there.
func (r *run) reaches(p *partition, to *PartitionReport) {
	to.RowsFrom, to.DeadLettersFrom, to.OutboxFrom = max(p.begin, p.pruned.rows.end()), max(p.begin, p.pruned.dead.end()), max(p.begin, p.pruned.outbox.end())
	to.EventsFrom, to.DLQFrom = r.outputs[r.opts.Output].from(p), r.outputs[r.opts.DLQ].from(p)
}

// from is the source offset from which on retention has taken nothing of the partition's records.
func (o *output) from(p *partition) int64 {
	from := p.begin
	for _, op := range o.parts {
		if s, ok := op.seen[p.id]; ok && op.start > 0 {
			from = max(from, s.first)
		}
	}
	return from
}
