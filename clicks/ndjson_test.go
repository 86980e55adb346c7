package clicks

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/schema"
)

const aSession = "6f1f3c1e-58b2-4f0e-9d6d-6f3e5c0a7b11"

func TestParseJSONLine(t *testing.T) {
	full := schema.Click{UserID: 7, SessionID: aSession, TimestampMs: 1_769_904_000_123, URL: "https://shop.example/", IP: "8.8.8.8"}
	for _, tc := range []struct {
		line string
		want schema.Click
		err  error
	}{
		{line: `{"user_id":7,"session_id":"` + aSession + `","timestamp":1769904000123,"url":"https://shop.example/","ip":"8.8.8.8"}`, want: full},
		{line: `{"more":{"x":[1]},"ip":"::ffff:8.8.8.8","url":"https://shop.example/","timestamp":"2026-02-01T01:00:00.123+01:00","session_id":"` + strings.ToUpper(aSession) + `","user_id":7}`, want: full},
		{line: `{"user_id":7,"session_id":"` + aSession + `","timestamp":"2026-02-01t00:00:00.123z","url":"https://shop.example/","ip":"8.8.8.8"}`, want: full},
		{line: `{"user_id":0,"timestamp":1,"url":"u","ip":"8.8.8.8"}`, err: errJSONUser},
		{line: `{"user_id":1.5,"timestamp":1,"url":"u","ip":"8.8.8.8"}`, err: errJSONUser},
		{line: `{"user_id":"7","timestamp":1,"url":"u","ip":"8.8.8.8"}`, err: errJSONUser},
		{line: `{"user_id":9223372036854775808,"timestamp":1,"url":"u","ip":"8.8.8.8"}`, err: errJSONUser},
		{line: `{"user_id":7,"timestamp":"yesterday","url":"u","ip":"8.8.8.8"}`, err: errJSONTime},
		{line: `{"user_id":7,"url":"u","ip":"8.8.8.8"}`, err: errJSONTime},
		{line: `{"user_id":7,"timestamp":null,"url":"u","ip":"8.8.8.8"}`, err: errJSONTime},
		{line: `{"user_id":7,"timestamp":1,"ip":"8.8.8.8"}`, err: errJSONURL},
		{line: `{"user_id":7,"timestamp":1,"url":"u"}`, err: errJSONIP},
		{line: `{"user_id":7,"timestamp":1,"url":"u","ip":"300.1.1.1"}`, err: errJSONIP},
		{line: `[1]`, err: errNotObject},
		{line: `{"user_id":7`, err: errNotObject},
		{line: `null`, err: errJSONIP},
	} {
		var vs visitors
		var c schema.Click
		err := parseJSONLine([]byte(tc.line), &vs, &c)
		require.ErrorIs(t, err, tc.err, tc.line)
		if tc.err == nil {
			require.Equal(t, tc.want, c, tc.line)
		}
	}
}

func TestParseJSONLineDerives(t *testing.T) {
	var vs visitors
	var a, b, c, d schema.Click
	require.NoError(t, parseJSONLine([]byte(`{"timestamp":1000,"url":"u","ip":"8.8.8.8","user_agent":"x"}`), &vs, &a))
	require.NoError(t, parseJSONLine([]byte(`{"timestamp":2000,"url":"u","ip":"8.8.8.8","user_agent":"x","user_id":null,"session_id":null}`), &vs, &b))
	require.Equal(t, visitor{"8.8.8.8", "x"}.userID(), a.UserID)
	require.Equal(t, a.UserID, b.UserID)
	require.Equal(t, a.SessionID, b.SessionID)
	require.NoError(t, uuid.Validate(a.SessionID))

	require.NoError(t, parseJSONLine([]byte(`{"timestamp":1,"url":"u","ip":"8.8.8.8","session_id":"abc"}`), &vs, &c))
	require.NoError(t, parseJSONLine([]byte(`{"timestamp":9,"url":"u","ip":"9.9.9.9","session_id":"abc"}`), &vs, &d))
	require.Equal(t, c.SessionID, d.SessionID, "a session id that is no UUID stays the same session")
	require.NoError(t, uuid.Validate(c.SessionID))

	require.EqualError(t, parseJSONLine([]byte(`{"ip":7}`), &vs, &c), "ip must be string")
}
