package apache

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// A folder formatted without the tool has what the tool writes there, and is its broker's alone.
func TestFormatLike(t *testing.T) {
	seen := map[string]bool{}
	for id := range 3 {
		o := options(t, Options{Brokers: 3, ClusterID: "73bifX_6qPQTaQRmwlBkQg", Dir: t.TempDir()})
		b := newBroker(o, nil, id, nil)
		data := filepath.Join(b.dir, "data")
		require.NoError(t, b.formatLike(data, []byte("records")))
		records, err := os.ReadFile(filepath.Join(data, checkpoint))
		require.NoError(t, err)
		require.Equal(t, "records", string(records))
		properties, err := os.ReadFile(filepath.Join(data, meta))
		require.NoError(t, err)
		m := regexp.MustCompile(`^cluster.id=73bifX_6qPQTaQRmwlBkQg\ndirectory.id=([A-Za-z0-9_][A-Za-z0-9_-]{21})\nnode.id=([0-2])\nversion=1\n$`).FindSubmatch(properties)
		require.NotNil(t, m, "%s", properties)
		require.Equal(t, byte('0'+id), m[2][0])
		require.False(t, seen[string(m[1])], "two folders of one name")
		seen[string(m[1])] = true
		left, err := os.ReadDir(b.dir)
		require.NoError(t, err)
		require.Len(t, left, 1, "something beside the data was left")
	}
}

// Whoever asks for more than a version's features, users say, has them written by the tool.
func TestPlain(t *testing.T) {
	for name, c := range map[string]struct {
		o     Options
		plain bool
	}{
		"nothing":  {Options{}, true},
		"settings": {Options{Properties: map[string]string{"num.io.threads": "2"}}, true},
		"users":    {Options{Format: []string{"--add-scram", "x"}}, false},
		"unstable": {Options{Properties: map[string]string{"unstable.api.versions.enable": "true"}}, false},
		"of one": {Options{PerBroker: func(int) map[string]string {
			return map[string]string{"unstable.feature.versions.enable": "true"}
		}}, false},
	} {
		require.Equal(t, c.plain, newBroker(options(t, c.o), nil, 0, nil).plain(), name)
	}
}
