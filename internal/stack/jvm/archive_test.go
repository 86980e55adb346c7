package jvm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// draft is the file that an argument has a JVM write.
func draft(argument string) string {
	return strings.TrimPrefix(argument, "-XX:ArchiveClassesAtExit=")
}

func command(p *Programs) string {
	return strings.Join(p.Kafka(nil, "kafka.Kafka").Args, " ")
}

func TestArchivedOnce(t *testing.T) {
	p := &Programs{java: "java", version: "17", dir: t.TempDir()}
	require.NotContains(t, command(p), "SharedArchiveFile")
	var runs atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			err := p.Archive(t.Context(), Kafka, func(argument string) error {
				runs.Add(1)
				return os.WriteFile(draft(argument), []byte("classes"), 0o600)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, runs.Load())
	require.Contains(t, command(p), "-XX:SharedArchiveFile="+p.archive(Kafka))
	require.FileExists(t, p.archive(Kafka))
	require.NotContains(t, strings.Join(p.command(Registry, nil, nil).Args, " "), "SharedArchiveFile", "each program has its own")

	other := *p
	other.version = "18"
	require.NotContains(t, command(&other), "SharedArchiveFile", "an archive is one java's")
}

// An archive that can't be made is one that there is not: nothing of it is left, and the program runs without.
func TestArchiveFails(t *testing.T) {
	p := &Programs{java: "java", version: "17", dir: t.TempDir()}
	crash := errors.New("it was killed")
	runs := 0
	for range 2 { // what went wrong may go well the next time
		err := p.Archive(t.Context(), Kafka, func(argument string) error {
			runs++
			require.NoError(t, os.WriteFile(draft(argument), []byte("half of the classes"), 0o600))
			return crash
		})
		require.ErrorIs(t, err, crash)
		require.NotContains(t, command(p), "SharedArchiveFile")
	}
	require.Equal(t, 2, runs)

	nothing := func(string) error { runs++; return nil }
	require.ErrorContains(t, p.Archive(t.Context(), Kafka, nothing), "wrote no archive")
	require.NoError(t, p.Archive(t.Context(), Kafka, nothing), "it is not tried again")
	require.Equal(t, 3, runs)
	require.NotContains(t, command(p), "SharedArchiveFile")
	left, err := filepath.Glob(filepath.Join(p.dir, "*.jsa*"))
	require.NoError(t, err)
	require.Equal(t, []string{p.archive(Kafka) + ".failed", p.archive(Kafka) + ".lock"}, left)
}
