package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
)

// siteURL stands before the paths of the access log.
const siteURL = "https://www.example.org"

// Counts are the audit's, and what it found.
type Counts struct {
	Clicks      int64                 `json:"clicks"`
	Rows        int64                 `json:"rows"`
	DeadLetters int64                 `json:"dead_letters"`
	Events      int64                 `json:"events"`
	DLQ         int64                 `json:"dlq"`
	Found       map[audit.Class]int64 `json:"found"`
	Findings    []audit.Finding       `json:"findings"`
}

// Example is one click on its way.
type Example struct {
	Source  string `json:"source"` // topic/partition/offset
	UserID  int64  `json:"user_id"`
	URL     string `json:"url"`
	Country string `json:"country"`
	Event   string `json:"event"` // topic/partition
}

// audit is the last act: the proof.
func (d *demo) audit(ctx context.Context) error {
	d.screen.act(6, "The audit")
	if d.opt.Damage {
		if err := d.damage(ctx); err != nil {
			return err
		}
		d.screen.tell("Asked to, this demo has just deleted a row behind the pipeline's back: %s.", d.damaged)
	}
	d.screen.progress("reading everything again and holding it against each other")
	begun := time.Now()
	o, err := connect.Audit(&d.cfg)
	if err != nil {
		return err
	}
	o.Settled = true
	r, err := audit.Run(ctx, o)
	if err != nil {
		return err
	}
	d.res.Clean, d.res.Verdict = r.Clean(), r.Verdict
	d.res.Audit = Counts{r.Totals.Input, r.Totals.Rows, r.Totals.DeadLetters, r.Totals.Events, r.Totals.DLQ, r.Found, r.Findings}
	if d.res.Examples, err = d.examples(ctx); err != nil {
		return err
	}
	d.screen.tell("It trusts nothing the workers said: it has read all topics and tables again and held every single click against what became of it. That took %s.", seconds(time.Since(begun)))
	d.screen.say("")
	d.showAudit(r)
	d.screen.say("")
	return d.showExamples(ctx)
}

func (d *demo) showAudit(r *audit.Report) {
	t, n := d.cfg.Topics, r.Totals
	line := func(what string, count int64) { d.screen.say("%-42s %9s", what, number(count)) }
	line("clicks in, in topic "+t.Input, n.Input)
	line("rows in Postgres", n.Rows)
	line("dead letters in Postgres", n.DeadLetters)
	line("events in topic "+t.Output, n.Events)
	line("dead letters in topic "+t.DLQ, n.DLQ)
	d.screen.say("")
	var other int64
	for _, c := range audit.Classes {
		if c != audit.Missing && c != audit.Duplicate && c != audit.Different {
			other += r.Found[c]
		}
	}
	for _, f := range []struct {
		what string
		n    int64
	}{
		{"missing anywhere", r.Found[audit.Missing]}, {"there twice", r.Found[audit.Duplicate]},
		{"different in the two", r.Found[audit.Different]}, {"anything else wrong", other},
	} {
		style := green
		if f.n > 0 {
			style = red
		}
		d.screen.say("%-42s %s", f.what, d.screen.in(style, fmt.Sprintf("%9s", number(f.n))))
	}
	for i, f := range r.Findings {
		if i == 5 {
			d.screen.say("and more")
			break
		}
		d.screen.tell("%s %s %s: %s", f.Class, f.Sink, f.Coordinate(), f.Says)
	}
	d.screen.say("")
	style := green
	if !r.Clean() {
		style = red
	}
	d.screen.verdict(style, "verdict: "+r.Verdict)
}

// damage deletes one row, so that one can see the audit find it.
func (d *demo) damage(ctx context.Context) error {
	var p int32
	var o int64
	err := d.db.QueryRow(ctx, `DELETE FROM enriched_clicks WHERE (source_id, source_partition, source_offset) IN
		(SELECT source_id, source_partition, source_offset FROM enriched_clicks ORDER BY 2, 3 LIMIT 1) RETURNING source_partition, source_offset`).Scan(&p, &o)
	if err != nil {
		return fmt.Errorf("delete a row on purpose: %w", err)
	}
	d.damaged = fmt.Sprintf("that of %s/%d, offset %d", d.cfg.Topics.Input, p, o)
	return nil
}

// examples are two made-up clicks and one of the access log, from three countries.
func (d *demo) examples(ctx context.Context) ([]Example, error) {
	rows, err := d.db.Query(ctx, `
		WITH first AS (SELECT DISTINCT ON (country) c.*, url LIKE $1 || '%' AS logged FROM enriched_clicks c
			WHERE country <> 'ZZ' ORDER BY country, url LIKE $1 || '%' DESC, source_partition, source_offset),
		three AS ((SELECT * FROM first WHERE NOT logged ORDER BY hashtext(country) LIMIT 2) UNION ALL (SELECT * FROM first WHERE logged ORDER BY hashtext(country) LIMIT 1))
		SELECT t.source_partition, t.source_offset, t.user_id, t.url, t.country, o.topic, o.partition
		FROM three t JOIN outbox o USING (source_id, source_partition, source_offset) ORDER BY t.logged, t.source_partition`, siteURL)
	if err != nil {
		return nil, fmt.Errorf("read example rows: %w", err)
	}
	defer rows.Close()
	var out []Example
	for rows.Next() {
		var e Example
		var sp, ep int32
		var offset int64
		var topic string
		if err := rows.Scan(&sp, &offset, &e.UserID, &e.URL, &e.Country, &topic, &ep); err != nil {
			return nil, fmt.Errorf("read example rows: %w", err)
		}
		e.Source, e.Event = fmt.Sprintf("%s/%d/%d", d.cfg.Topics.Input, sp, offset), fmt.Sprintf("%s/%d", topic, ep)
		out = append(out, e)
	}
	return out, rows.Err()
}

func (d *demo) showExamples(ctx context.Context) error {
	d.screen.tell("Three of the rows, and the Kafka partition of each one's event (two are made up, one is nginx's):")
	const columns = "%-19s %10v  %-7s  %-18s  "
	d.screen.say(columns+"%s", "click", "user", "country", "event", "url")
	for _, e := range d.res.Examples {
		d.screen.cut(columns+"%s", e.Source, e.UserID, e.Country, e.Event, strings.TrimPrefix(e.URL, "https://"))
	}
	rows, err := d.db.Query(ctx, `SELECT error_class, count(*) FROM dead_letters GROUP BY 1 ORDER BY 2 DESC, 1`)
	if err != nil {
		return fmt.Errorf("read the dead letters: %w", err)
	}
	defer rows.Close()
	var why []string
	for rows.Next() {
		var class string
		var n int64
		if err := rows.Scan(&class, &n); err != nil {
			return fmt.Errorf("read the dead letters: %w", err)
		}
		why = append(why, fmt.Sprintf("%s %d", class, n))
	}
	if len(why) > 0 {
		d.screen.tell("The dead letters, by what is wrong with them: %s.", strings.Join(why, ", "))
	}
	return rows.Err()
}

// howToGoOn comes last.
func (d *demo) howToGoOn() {
	d.screen.say("")
	if d.opt.Keep != "" {
		d.screen.tell("Kept in %s: the workers' logs and the stack.", d.dir)
		d.screen.tell("Look around in it with: exactly dev --data %s/stack", d.dir)
	} else {
		d.screen.tell("It took %s. Nothing is left running, no file is left behind; exactly demo --keep DIR keeps them.", seconds(time.Since(d.begun)))
	}
	d.screen.tell("To go on: exactly dev --data ./dev runs such a stack for you to work with; the README says how.")
}
