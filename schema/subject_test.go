package schema

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
)

// What keeps our schema and a version of the subject from being FULL_TRANSITIVE, in either direction, is found.
func TestSubjectFindings(t *testing.T) {
	const name = "clicks-value"
	for _, c := range []struct {
		name, version string
		found         []string
	}{
		{"ours", ClickAvsc, nil},
		{"a field more, with a default", strings.Replace(ClickAvsc, `"fields": [`, `"fields": [{"name":"note","type":"string","default":""},`, 1), nil},
		{"a field more, without", strings.Replace(ClickAvsc, `"fields": [`, `"fields": [{"name":"note","type":"string"},`, 1), []string{"readers can't read what is written as ours"}},
		{"narrower", strings.Replace(ClickAvsc, `"long"`, `"int"`, 1), []string{"readers can't read what is written as ours"}},
		{"a field less", `{"type":"record","name":"Click","namespace":"exactly","fields":[{"name":"user_id","type":"long"}]}`, []string{"can't be read as ours"}},
		{"nullable", strings.Replace(ClickAvsc, `"type": "long", "doc"`, `"type": ["null", "long"], "doc"`, 1), []string{"not compatible with writer schema null"}},
		{"something else", `"string"`, []string{"can't be read as ours", "readers can't read what is written as ours"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake, reg := setup(t)
			fake.SeedSchema(name, 1, 40, sr.Schema{Schema: c.version, Type: sr.TypeAvro})
			is, err := reg.Examine(t.Context(), name, ClickAvsc)
			require.NoError(t, err)
			is.Level, is.Refused = "", "" // another test's
			found := is.Findings()
			require.Len(t, found, len(c.found), "%v", found)
			for i := range found {
				require.Contains(t, found[i], c.found[i])
			}
		})
	}
}

func TestSetLevel(t *testing.T) {
	fake, reg := setup(t)
	_, _, err := reg.Register(t.Context(), "clicks-value", ClickAvsc)
	require.NoError(t, err)
	is, err := reg.Examine(t.Context(), "clicks-value", ClickAvsc)
	require.NoError(t, err)
	require.Equal(t, "BACKWARD", is.Level)
	require.Len(t, is.Findings(), 1)
	before, err := reg.SetLevel(t.Context(), "clicks-value")
	require.NoError(t, err)
	require.Equal(t, "BACKWARD", before)
	before, err = reg.SetLevel(t.Context(), "clicks-value")
	require.NoError(t, err)
	require.Equal(t, OwnLevel, before)
	is, err = reg.Examine(t.Context(), "clicks-value", ClickAvsc)
	require.NoError(t, err)
	require.Empty(t, is.Findings())
	versions, err := reg.Versions(t.Context(), "clicks-value")
	require.NoError(t, err)
	require.Equal(t, []int{1}, versions)
	versions, err = reg.Versions(t.Context(), "nobody's")
	require.NoError(t, err)
	require.Empty(t, versions)
	fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
	_, err = reg.SetLevel(t.Context(), "clicks-value")
	requireClass(t, err, "")
	_, err = reg.Versions(t.Context(), "clicks-value")
	requireClass(t, err, "")
}
