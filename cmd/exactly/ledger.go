package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

func newLedger(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ledger", Short: "Look at the ledger's chains, verify and archive them, and make a key that signs their heads",
		Long: `The ledger has an entry for every capture and every deed of a person, each with the hash of the one before: a chain per source partition. The newest
entry of each chain is published to Kafka (ledger.heads_topic) along with the events, signed if ledger.signing_key_file is set.
doc/security.md says who could bend what, and what then shows it.`,
		Example: "  exactly ledger verify --public-key ledger.key.pub\n  exactly ledger show --partition 3",
	}
	cmd.AddCommand(newLedgerShow(g), newLedgerVerify(g), newLedgerKeygen(g), newLedgerArchive(g))
	return cmd
}

func newLedgerKeygen(g *globals) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "keygen", Short: "Make an Ed25519 key that signs heads",
		Long: `Writes the private key to --out, for its owner only to read, and the public key to --out.pub. Give workers the first (ledger.signing_key_file), and keep
the second where those who verify find it and those who could bend the ledger can't change it. Neither file may exist.`,
		Example: "  exactly ledger keygen --out /etc/exactly/ledger.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usageError(errors.New("--out: must say where to write the key"))
			}
			public, err := ledger.GenerateKey(out)
			if err != nil {
				return fmt.Errorf("make a key: %w", err)
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"key": ledger.KeyID(public), "private": out, "public": out + ".pub"})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key %s: private %s, public %s.pub\n", ledger.KeyID(public), out, out)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` for the private key")
	return cmd
}

// atLedger connects to the database and finds the source there, for f.
func atLedger(cmd *cobra.Command, g *globals, f func(context.Context, *config.Config, *pgx.Conn, ledger.Stream) error) error {
	c, err := g.load()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if err := migrations.Check(ctx, c.Postgres.DSN); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, c.Postgres.DSN)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // read only
	src, err := txn.FindSource(ctx, conn, c.Topics.Input, c.Group)
	if err != nil {
		return err
	}
	return f(ctx, &c, conn, src.Stream())
}

func newLedgerVerify(g *globals) *cobra.Command {
	var partitions []int32
	var files []string
	cmd := &cobra.Command{
		Use: "verify", Short: "Recompute the chains and hold them against their heads in Kafka",
		Long: `Recomputes every entry's hash and each chain, and holds them against the stored offsets' rows and against every head in Kafka. With --public-key (or a
signing key in the settings) each head from the first signed one on must be signed by one of the keys. The chains of replayed dead letters, which are a source of
their own, are verified likewise, unless partitions are named. Exit code 3 if anything is wrong.
What the entries say of rows and events, exactly audit checks.`,
		Example: "  exactly ledger verify\n  exactly ledger verify --public-key ledger.key.pub --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atLedger(cmd, g, func(ctx context.Context, c *config.Config, conn *pgx.Conn, s ledger.Stream) error {
				keys, err := publicKeys(c, files)
				if err != nil {
					return usageError(err)
				}
				var rep verified
				defer progress.Of(cmd.Context()).Clear()
				if rep.Report, err = heads.Verify(ctx, c, conn, s, partitions, keys); err != nil {
					return err
				}
				if len(partitions) == 0 {
					if rep.Replays, err = verifyReplays(ctx, c, conn, keys); err != nil {
						return err
					}
				}
				progress.Of(cmd.Context()).Clear()
				if err := g.printVerified(cmd, &rep); err != nil {
					return err
				}
				if n := len(rep.wrong()); n > 0 {
					return &exitError{code: 3, err: fmt.Errorf("%d things are wrong with the ledger", n)}
				}
				return nil
			})
		},
	}
	cmd.Flags().Int32SliceVar(&partitions, "partition", nil, "source partition `P` (repeatable); default: all")
	cmd.Flags().StringArrayVar(&files, "public-key", nil, "`FILE` of a public key that heads are to be signed with (repeatable)")
	return cmd
}

// verified is what was found of the input's chains, and of the replays'.
type verified struct {
	*heads.Report
	Replays *heads.Report `json:"replays,omitempty"` // nil: nothing was ever replayed
}

func (v *verified) wrong() []string {
	if v.Replays == nil {
		return v.Wrong
	}
	return slices.Concat(v.Wrong, v.Replays.Wrong)
}

// verifyReplays verifies the chains of the source that `dlq replay` writes its pointers to; nil: there is none yet.
func verifyReplays(ctx context.Context, c *config.Config, conn *pgx.Conn, keys []ed25519.PublicKey) (*heads.Report, error) {
	r := c.Replay()
	src, err := txn.FindSource(ctx, conn, r.Topics.Input, r.Group)
	if errors.Is(err, txn.ErrNoSource) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rep, err := heads.Verify(ctx, &r, conn, src.Stream(), nil, keys)
	if err != nil {
		return nil, fmt.Errorf("replays: %w", err)
	}
	for i := range rep.Wrong {
		rep.Wrong[i] = "replays: " + rep.Wrong[i]
	}
	return rep, nil
}

func publicKeys(c *config.Config, files []string) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for _, f := range files {
		k, err := ledger.LoadPublic(f)
		if err != nil {
			return nil, fmt.Errorf("--public-key: %w", err)
		}
		keys = append(keys, k)
	}
	if len(keys) > 0 || c.Ledger.SigningKeyFile == "" {
		return keys, nil
	}
	s, err := ledger.LoadSigner(c.Ledger.SigningKeyFile)
	if err != nil {
		return nil, fmt.Errorf("ledger.signing_key_file: %w", err)
	}
	return []ed25519.PublicKey{s.Public()}, nil
}

func (g *globals) printVerified(cmd *cobra.Command, rep *verified) error {
	out := cmd.OutOrStdout()
	if g.json {
		return printJSON(out, rep)
	}
	if err := printChains(out, rep.Report); err != nil {
		return err
	}
	if rep.Replays != nil {
		fmt.Fprintln(out, "\nof replayed dead letters:")
		if err := printChains(out, rep.Replays); err != nil {
			return err
		}
	}
	for _, s := range rep.wrong() {
		fmt.Fprintln(out, "wrong:", s)
	}
	if len(rep.wrong()) == 0 {
		fmt.Fprintln(out, "the chains hold")
	}
	return nil
}

func printChains(out io.Writer, rep *heads.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "partition\tentries\tfrom seq\tto seq\thash\theads in Kafka\tsigned\tup to seq\tnot yet in Kafka")
	for _, p := range rep.Partitions {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%.16s…\t%d\t%d\t%d\t%d\n", p.Partition, p.Entries, p.FirstSeq, p.Seq, p.Hash.String(), p.Heads, p.Signed, p.InKafka, p.NotInKafka)
	}
	return w.Flush()
}
