package clicks

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/schema"
)

func take(g *Generator, n int) (cs []schema.Click, ds []Defect) {
	for range n {
		var c schema.Click
		ds = append(ds, g.Next(&c))
		cs = append(cs, c)
	}
	return cs, ds
}

func TestGeneratorRepeatsASeed(t *testing.T) {
	cfg := GeneratorConfig{Seed: 42, BadShare: 0.01}
	a, da := take(NewGenerator(cfg), 20_000)
	b, db := take(NewGenerator(cfg), 20_000)
	require.Equal(t, a, b)
	require.Equal(t, da, db)

	cfg.Seed = 43
	c, _ := take(NewGenerator(cfg), 20_000)
	require.NotEqual(t, a, c)

	// What a seed makes is remembered in bug reports and in the demo's text: it must not change by accident.
	require.Equal(t, schema.Click{
		UserID: 3359, SessionID: "f5b55a61-3bd5-4a16-9489-233d71607e13", TimestampMs: generatorEpoch,
		URL: "https://shop.example/product/1539", IP: "179.139.232.218",
	}, a[0])
}

func TestGeneratorLiveChangesOnlyTimestamps(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_123)
	a, _ := take(NewGenerator(GeneratorConfig{Seed: 7}), 100)
	b, _ := take(NewGenerator(GeneratorConfig{Seed: 7, Live: true, Now: func() time.Time { return now }}), 100)
	for i := range a {
		require.Equal(t, generatorEpoch+int64(i), a[i].TimestampMs)
		require.Equal(t, now.UnixMilli(), b[i].TimestampMs)
		a[i].TimestampMs, b[i].TimestampMs = 0, 0
	}
	require.Equal(t, a, b)
}

func TestGeneratedClicksAreValidAndSpread(t *testing.T) {
	const n = 200_000
	cs, ds := take(NewGenerator(GeneratorConfig{Seed: 1}), n)
	users, sessions, urls, v6 := map[int64]int{}, map[string]string{}, map[string]int{}, 0
	limits := schema.DefaultLimits()
	for i, c := range cs {
		require.Equal(t, None, ds[i])
		_, bad := limits.Validate(&c, time.UnixMilli(c.TimestampMs))
		require.Nil(t, bad)
		require.True(t, c.UserID >= 1 && c.UserID <= 10_000, c.UserID)
		a, err := netip.ParseAddr(c.IP)
		require.NoError(t, err)
		require.True(t, isPublic(a), a)
		if a.Is6() {
			v6++
		}
		if ip, ok := sessions[c.SessionID]; ok {
			require.Equal(t, ip, c.IP, "a session comes from one address")
		} else {
			u, err := uuid.Parse(c.SessionID)
			require.NoError(t, err)
			require.EqualValues(t, 4, u.Version())
			sessions[c.SessionID] = c.IP
		}
		users[c.UserID]++
		urls[c.URL]++
	}
	require.Len(t, users, 10_000, "every user clicks")
	for u, k := range users { // 20 expected each, standard deviation 4.5
		require.Less(t, k, 60, u)
	}
	require.Greater(t, len(urls), 400)
	require.InDelta(t, n/7, len(sessions), n/40) // 8.5 clicks each, less the sessions that go on after the last click here
	require.InDelta(t, 0.1, float64(v6)/n, 0.02)
}

func TestGeneratorMakesEveryDefect(t *testing.T) {
	const n = 100_000
	cs, ds := take(NewGenerator(GeneratorConfig{Seed: 3, BadShare: 0.01}), n)
	found := map[Defect]int{}
	enc := schema.NewClickEncoder(1)
	for i, c := range cs {
		found[ds[i]]++
		good := enc.Append(nil, &c)
		value := ds[i].Damage(enc.Append(nil, &c))
		_, ipErr := netip.ParseAddr(c.IP)
		require.Equal(t, ds[i] == BadIP, ipErr != nil)
		require.Equal(t, ds[i] == BadUserID, c.UserID < 1)
		require.Equal(t, ds[i] == BadMagic, value[0] != 0)
		require.Equal(t, ds[i] == BadTruncated, len(value) < len(good))
	}
	require.InDelta(t, n/100, n-found[None], 150)
	for d := None; d < defects; d++ {
		require.Greater(t, found[d], 150, d)
	}
	cs, ds = take(NewGenerator(GeneratorConfig{BadShare: 1}), 1000)
	require.NotContains(t, ds, None)
	require.Len(t, cs, 1000)
}

func TestBadShareDoesNotChangeWhichClicks(t *testing.T) {
	a, _ := take(NewGenerator(GeneratorConfig{Seed: 5}), 10_000)
	b, ds := take(NewGenerator(GeneratorConfig{Seed: 5, BadShare: 0.1}), 10_000)
	for i := range a {
		if ds[i] == None {
			require.Equal(t, a[i], b[i])
		}
	}
}

func TestIsPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "193.0.6.139": true, "::ffff:8.8.8.8": true, "2001:4860:4860::8888": true, "2a00:1450::1": true,
		"10.1.2.3": false, "172.31.255.255": false, "172.32.0.0": true, "192.168.0.1": false, "100.64.0.1": false, "100.128.0.0": true,
		"127.0.0.1": false, "169.254.1.1": false, "203.0.113.9": false, "224.0.0.1": false, "255.255.255.255": false, "0.0.0.0": false,
		"::ffff:10.0.0.1": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false, "2001:db8::1": false, "2001::1": false,
		"2002:808:808::1": false, "64:ff9b::808:808": false, "3fff::1": false, "ff02::1": false,
	} {
		require.Equal(t, want, isPublic(netip.MustParseAddr(text)), text)
	}
	require.False(t, isPublic(netip.Addr{}))
}

func BenchmarkGeneratorNext(b *testing.B) {
	g, enc := NewGenerator(GeneratorConfig{Seed: 1}), schema.NewClickEncoder(1)
	var c schema.Click
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		g.Next(&c)
		buf = enc.Append(buf[:0], &c)
	}
}
