package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealth(g *globals) *cobra.Command {
	var ready, started bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "health", Short: "Ask the worker that runs here whether it is well, exit 1 if not",
		Long: `Asks the listener of http.addr, as a container's health check: the worker's image has neither a shell nor curl.
Without flags it asks whether the worker is alive: only a no to that is a reason to restart it. --ready asks whether it is at work on all it has; --started
whether it has come to its stores and into the group. Exit 0: yes; 1: no, or nobody answers.`,
		Example: "  exactly health\n  exactly health --ready\n  exactly health --started",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			if c.HTTP.Addr == "" {
				return usageError(errors.New("http.addr (EXACTLY_HTTP_ADDR) is empty: the worker has no listener to ask"))
			}
			path := "/livez"
			switch {
			case ready && started:
				return usageError(errors.New("--ready and --started: one question at a time"))
			case ready:
				path = "/readyz"
			case started:
				path = "/startupz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			code, said, err := ask(ctx, c.HTTP.Addr, path)
			if err != nil {
				return fmt.Errorf("no answer from http.addr %s (EXACTLY_HTTP_ADDR): does a worker run here, with these settings? %w", c.HTTP.Addr, err)
			}
			well := code == http.StatusOK
			if g.json {
				err = printJSON(cmd.OutOrStdout(), map[string]any{"ok": well, "status": code, "said": said})
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), said)
			}
			if err == nil && !well {
				err = &exitError{code: 1}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask /readyz instead of /livez")
	cmd.Flags().BoolVar(&started, "started", false, "ask /startupz instead of /livez")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long an answer may take")
	return cmd
}

// mostSaid bounds what is read of an answer, in bytes.
const mostSaid = 4096

// ask asks the listener at addr. An address without a host, or an unspecified one, is this machine (net.Dial).
func ask(ctx context.Context, addr, path string) (code int, said string, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true, // no proxy either: it is about this process' neighbour
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://exactly"+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op // without the made-up URL
		}
		return 0, "", err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(io.LimitReader(res.Body, mostSaid))
	return res.StatusCode, strings.TrimSpace(string(b)), err
}
