package stack

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

func openRegistry(t *testing.T, dir string) (*registry, *sr.Client) {
	t.Helper()
	st := &state{}
	r, err := startRegistry(Options{Dir: dir, Log: zap.NewNop()}, st)
	require.NoError(t, err)
	cl, err := sr.NewClient(sr.URLs("http://" + child.Loopback(st.RegistryPort)))
	require.NoError(t, err)
	return r, cl
}

func TestRegistryKeepsAllOfIt(t *testing.T) {
	dir := t.TempDir()
	r, cl := openRegistry(t, dir)
	register := func(subject, schema string) sr.SubjectSchema {
		t.Helper()
		s, err := cl.CreateSchema(bounded(t), subject, sr.Schema{Schema: schema})
		require.NoError(t, err)
		return s
	}
	register("a", `"string"`)
	register("a", `"long"`)
	shared := register("b", `"long"`)
	for range 3 {
		register("b", `"long"`) // as each worker does at its start
	}
	require.Len(t, r.changes, 3, "a repetition is no change")
	err := cl.DeleteSchema(bounded(t), "a", 2, sr.SoftDelete)
	require.NoError(t, err)
	again := register("a", `"long"`) // after its deletion it is one
	require.Equal(t, shared.ID, again.ID)
	for _, res := range cl.SetCompatibility(bounded(t), sr.SetCompatibility{Level: sr.CompatFull}, "b") {
		require.NoError(t, res.Err)
	}
	require.NoError(t, r.stop())

	r, cl = openRegistry(t, dir)
	defer func() { require.NoError(t, r.stop()) }()
	versions, err := cl.SubjectVersions(bounded(t), "a")
	require.NoError(t, err)
	require.Equal(t, []int{1, again.Version}, versions)
	latest, err := cl.SchemaByVersion(bounded(t), "b", -1)
	require.NoError(t, err)
	require.Equal(t, shared.ID, latest.ID)
	require.Equal(t, sr.CompatFull, cl.Compatibility(bounded(t), "b")[0].Level)
	require.Equal(t, shared.ID+1, register("c", `"int"`).ID, "ids go on where they were")
}

func TestEnvCanBeSourced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "an env's file")
	require.NoError(t, WriteEnv(path, map[string]string{"PLAIN": "postgres://a:b@127.0.0.1:1/c", "ODD": `it's $HOME "x" \ &`}))
	out, err := exec.Command("sh", "-c", `set -a; . "$1"; set +a; printf '%s\n%s' "$PLAIN" "$ODD"`, "sh", path).Output()
	require.NoError(t, err)
	require.Equal(t, "postgres://a:b@127.0.0.1:1/c\n"+`it's $HOME "x" \ &`, string(out))
}
