package main

import (
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/schema"
)

// drawnUnasked is how many clicks a dry run prints if nobody says.
const drawnUnasked = 10

// drawn prints the first clicks of a source and sends nothing.
func (g *globals) drawn(cmd *cobra.Command, source clicks.Source, count int64) error {
	if count == 0 {
		count = drawnUnasked
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	for range count {
		var c schema.Click
		_, err := source.Next(cmd.Context(), &c)
		if errors.Is(err, io.EOF) || cmd.Context().Err() != nil {
			return nil
		}
		if err == nil {
			err = enc.Encode(map[string]any{"user_id": c.UserID, "session_id": c.SessionID, "timestamp": time.UnixMilli(c.TimestampMs).UTC().Format("2006-01-02T15:04:05.000Z07:00"),
				"url": c.URL, "ip": c.IP})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
