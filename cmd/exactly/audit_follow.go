package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
)

// goOn audits round by round until it is told to stop, and writes a line of each. Exit code 3: the last round found something.
func (f *auditFlags) goOn(cmd *cobra.Command, asJSON bool, c *config.Config, o audit.Options) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	m := telemetry.NewAuditMetrics(version)
	if c.HTTP.Addr != "" {
		if err := m.Serve(ctx, c.HTTP.Addr); err != nil {
			return err
		}
	}
	rounds := &audit.Follower{Options: o, Whole: f.whole}
	clean := true
	for {
		began := time.Now()
		rep, err := rounds.Next(ctx)
		if ctx.Err() != nil {
			break
		}
		progress.Of(ctx).Clear()
		m.Round(rep)
		if err == nil {
			clean = rep.Clean()
			err = f.round(out, asJSON, rep)
		}
		if err != nil { // a store is away: it is asked again
			fmt.Fprintf(cmd.ErrOrStderr(), "%s %v\n", time.Now().UTC().Format(time.RFC3339), err)
		}
		wait := time.NewTimer(max(f.every, 9*time.Since(began))) // whatever a round costs, it is a tenth of the time at most
		select {
		case <-ctx.Done():
		case <-wait.C:
			continue
		}
		wait.Stop()
		break
	}
	if !clean {
		return found()
	}
	return nil
}

// round tells of one round: a line, and what was found.
func (f *auditFlags) round(out interface{ Write([]byte) (int, error) }, asJSON bool, rep *audit.Report) error {
	if f.html != "" && !rep.Round {
		if err := writeHTML(f.html, rep); err != nil {
			return err
		}
	}
	if asJSON {
		return json.NewEncoder(out).Encode(rep)
	}
	unproven := int64(0)
	for i := range rep.Partitions {
		unproven += max(0, rep.Partitions[i].Stored-rep.Partitions[i].Verified)
	}
	for _, x := range rep.Findings {
		fmt.Fprintf(out, "%s %s %s: %s\n", x.Class, x.Sink, x.Coordinate(), x.Says)
	}
	_, err := fmt.Fprintf(out, "%s %s; not proven yet: %d; took %s\n", rep.At.Format(time.RFC3339), rep.Verdict, unproven, rep.Took.Round(time.Millisecond))
	return err
}
