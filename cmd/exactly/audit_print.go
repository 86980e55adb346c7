package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
)

// printAudit writes the report for people: what was read, partition by partition; what was found; the verdict last.
func printAudit(out io.Writer, r *audit.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partition\tfrom\tstored\tgroup\tclicks in\trows\tevents\tdead letters\tdlq\toutbox\towed\twaiting\tfindings\t")
	for _, p := range r.Partitions {
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", p.Partition, p.VouchedFrom, p.Stored, groupOffset(p.Group), p.Input, p.Rows, p.Events,
			p.DeadLetters, p.DLQ, p.Outbox, p.Owed, p.Waiting, p.Findings)
	}
	t := r.Totals
	fmt.Fprintf(w, "all\t\t\t\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\t\n", t.Input, t.Rows, t.Events, t.DeadLetters, t.DLQ, t.Outbox, t.Owed, t.Waiting)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range audit.Classes {
		var where []string
		for _, s := range audit.Sinks {
			if n := r.BySink[c][s]; n > 0 {
				where = append(where, fmt.Sprintf("%s %d", s, n))
			}
		}
		if c == audit.Gap && !r.Settled {
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", strings.ReplaceAll(string(c), "_", " "), r.Found[c], strings.Join(where, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := printDeeds(out, r); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(out)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%s %s %s: %s\n", f.Class, f.Sink, f.Coordinate(), f.Says)
	}
	var all int64
	for _, n := range r.Found {
		all += n
	}
	if more := all - int64(len(r.Findings)); more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
	_, err := fmt.Fprintf(out, "\nverdict: %s\n", r.Verdict)
	return err
}

func groupOffset(at int64) string {
	if at < 0 {
		return "none"
	}
	return fmt.Sprint(at)
}

// printDeeds writes what people did: all of it but mere starts.
func printDeeds(out io.Writer, r *audit.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	said := false
	for _, d := range r.Deeds {
		if d.Kind == "start" {
			continue
		}
		if !said {
			fmt.Fprintln(out)
		}
		said = true
		fmt.Fprintf(w, "%s\t%d#%d\t%s\t[%d,%d)\tby %s\t%s\n", d.At.UTC().Format(time.DateTime), d.Partition, d.Seq, strings.ReplaceAll(d.Kind, "_", " "), d.From, d.To, d.Who, d.Why)
	}
	return w.Flush()
}

// printPlace writes where one record is.
func printPlace(out io.Writer, l *audit.Place) error {
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000 UTC") }
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s/%d/%d\t%s\n", l.Topic, l.Partition, l.Offset, l.State)
	if l.Input == nil {
		fmt.Fprintln(w, "input\tno committed record there")
	} else {
		fmt.Fprintf(w, "input\trecord of %s\n", at(*l.Input))
	}
	for _, e := range l.Entries {
		fmt.Fprintf(w, "ledger\tentry %d#%d, %s of [%d,%d), epoch %d, by worker %q %s at %s\n", l.Partition, e.Seq, e.Kind, e.From, e.To, e.Epoch, e.Worker, e.Who, at(e.CommittedAt))
		fmt.Fprintf(w, "\tbuild %s, schemas %s, geo build %s, hash %s\n", e.Build, e.Schemas, e.Geo, e.Hash)
		if e.Why != "" {
			fmt.Fprintf(w, "\twhy: %s\n", e.Why)
		}
	}
	for _, r := range l.Rows {
		fmt.Fprintf(w, "row\tin %s, captured %s, %s\n", r.Table, at(r.CapturedAt), r.Says)
	}
	for _, r := range l.DeadLetters {
		fmt.Fprintf(w, "dead letter\tin %s, captured %s, %s\n", r.Table, at(r.CapturedAt), r.Says)
	}
	for _, o := range l.Outbox {
		fmt.Fprintf(w, "outbox\tin %s, message %d for %s/%d, captured %s; its record hash %s\n", o.Table, o.Seq, o.Topic, o.Partition, at(o.CreatedAt), o.Record)
	}
	for _, e := range append(append([]audit.At{}, l.Events...), l.DLQ...) {
		fmt.Fprintf(w, "event\t%s\n", e)
	}
	return w.Flush()
}
