package console

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/console/chain"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
)

// ledgerPage is the view Ledger.
type ledgerPage struct {
	Over    string // the stretch of time
	Overs   []string
	Look    *chain.Overview
	Heads   []chain.Head
	NoHeads string // why there are none
	Verify  *jobView
	May     bool // verify
	Page    *chain.Page
}

var stretches = map[string]time.Duration{"15m": 15 * time.Minute, "1h": time.Hour, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "all": 0}

const (
	lookAge  = 3 * time.Second
	tailSize = 400 // records of each partition of the heads' topic
)

func (s *Console) showLedger(w http.ResponseWriter, r *http.Request) error {
	p := &ledgerPage{Over: r.URL.Query().Get("over"), Overs: []string{"15m", "1h", "24h", "7d", "all"}, May: !s.opt.Worker}
	if _, ok := stretches[p.Over]; !ok {
		p.Over = "1h"
	}
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	src, err := s.source(ctx)
	if err != nil {
		return err
	}
	p.Look, err = s.looks.get(p.Over, lookAge, func() (*chain.Overview, error) {
		var since time.Time
		if d := stretches[p.Over]; d > 0 {
			since = time.Now().Add(-d)
		}
		return chain.Look(ctx, s.db, src.ID, since)
	})
	if err != nil {
		return err
	}
	if s.cfg.Ledger.HeadsTopic == "" {
		p.NoHeads = "ledger.heads_topic is empty: no head is published"
	} else {
		p.headsIn(s, src.Stream())
	}
	p.Verify = s.jobs.newest("verify").view()
	return s.show(w, r, "ledger", "Ledger", p)
}

func (s *Console) showVerify(w http.ResponseWriter, r *http.Request) error {
	return s.show(w, r, "ledger", "Ledger", &ledgerPage{Verify: s.jobs.newest("verify").view(), May: !s.opt.Worker})
}

func (s *Console) showChain(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.ParseInt(r.PathValue("partition"), 10, 32)
	if err != nil || n < 0 {
		return wrong("%q is no partition", r.PathValue("partition"))
	}
	seq, _ := strconv.ParseInt(r.URL.Query().Get("seq"), 10, 64)
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	src, err := s.source(ctx)
	if err != nil {
		return err
	}
	page, err := chain.Read(ctx, s.db, src.ID, int32(n), seq)
	if err != nil {
		return err
	}
	return s.show(w, r, "chain", "Ledger", &ledgerPage{Page: page})
}

// verify recomputes all chains and holds them against every head, as `exactly ledger verify` does.
func (s *Console) verify(w http.ResponseWriter, r *http.Request) error {
	s.jobs.start("verify", s.person(r), time.Hour, func(ctx context.Context, j *job) (any, error) {
		j.tell("reading the heads, then every entry of every chain", 0, 0)
		var keys []ed25519.PublicKey
		if f := s.cfg.Ledger.SigningKeyFile; f != "" {
			signer, err := ledger.LoadSigner(f)
			if err != nil {
				return nil, fmt.Errorf("ledger.signing_key_file: %w", err)
			}
			keys = append(keys, signer.Public())
		}
		conn, err := pgx.Connect(ctx, s.cfg.Postgres.DSN)
		if err != nil {
			return nil, fmt.Errorf("connect to postgres: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // read only
		src, err := s.source(ctx)
		if err != nil {
			return nil, err
		}
		return heads.Verify(ctx, s.cfg, conn, src.Stream(), nil, keys)
	})
	http.Redirect(w, r, Prefix+"/ledger#verify", http.StatusSeeOther)
	return nil
}

// headsIn takes the newest heads as they were read last: reading them takes Kafka longer than a page may take.
func (p *ledgerPage) headsIn(s *Console, stream ledger.Stream) {
	hs, ok, err := s.heads.soon("", lookAge, 80*time.Millisecond, func(ctx context.Context) (map[int32]ledger.Head, error) {
		return heads.Last(ctx, s.cfg, stream, tailSize)
	})
	switch {
	case err != nil:
		p.NoHeads = err.Error()
	case !ok:
		p.NoHeads = "being read: load the page again"
	}
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if p.Heads, err = chain.Heads(ctx, s.db, stream.SourceID, p.Look.Lines, hs); err != nil {
		p.NoHeads = err.Error()
	}
}
