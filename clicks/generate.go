package clicks

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/exactly-pipeline/exactly/schema"
)

// GeneratorConfig says which clicks a Generator makes. The zero value makes the clicks of seed 0.
type GeneratorConfig struct {
	Seed     uint64           // the same seed makes the same clicks, in the same order
	Users    int64            // user_id is 1..Users; 0: 10,000
	BadShare float64          // fraction of clicks, 0 to 1, that are made invalid on purpose
	Live     bool             // timestamps from Now; otherwise generatorEpoch plus a millisecond a click, so that a seed repeats in full
	Now      func() time.Time // nil: time.Now
}

// Defect is what was made wrong with a click on purpose; a pipeline has to send it to its dead letters. None is a good click.
type Defect uint8

// The kinds of defect, one for each way a consumer can find a click unusable.
const (
	None         Defect = iota
	BadUserID           // user_id is 0 or less
	BadIP               // ip is text that is no address
	BadMagic            // value does not begin with the wire format's zero byte
	BadTruncated        // value ends in the middle of its last field
	defects
)

// generatorEpoch is the first timestamp of a generator that is not live: what day it is does not matter, that it stays does.
var generatorEpoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// visit is one user's session: it has one session id and comes from one address, as a browser's does.
type visit struct {
	session, ip string
	left        int // clicks until the user comes back with another session
}

// Generator makes random clicks. It is a pure function of its configuration unless that asks for live timestamps. Not safe for
// use by several goroutines.
type Generator struct {
	cfg    GeneratorConfig
	rng    *rand.Rand
	visits []visit
	index  int64
}

// NewGenerator returns a generator at its first click. It panics on a share outside 0..1 or a negative number of users: whoever
// takes them from a person checks them.
func NewGenerator(cfg GeneratorConfig) *Generator {
	if cfg.BadShare < 0 || cfg.BadShare > 1 || cfg.Users < 0 {
		panic(fmt.Sprintf("clicks: NewGenerator: share %v, users %d", cfg.BadShare, cfg.Users))
	}
	cfg.Users = cmp.Or(cfg.Users, 10_000)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	// The second word only has to be fixed; this one is the golden ratio's, as everywhere.
	return &Generator{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)), visits: make([]visit, cfg.Users)}
}

// Next fills c with the next click and says what is wrong with it on purpose. BadMagic and BadTruncated cannot be seen in c: they
// are done to its encoded form, by Defect.Damage.
func (g *Generator) Next(c *schema.Click) Defect {
	user := g.rng.Int64N(g.cfg.Users)
	v := &g.visits[user]
	if v.left == 0 {
		v.left, v.session, v.ip = 1+g.rng.IntN(16), g.session(), publicAddr(g.rng).String()
	}
	v.left--
	at := generatorEpoch + g.index
	if g.cfg.Live {
		at = g.cfg.Now().UnixMilli()
	}
	g.index++
	*c = schema.Click{UserID: user + 1, SessionID: v.session, TimestampMs: at, URL: urls[g.rng.IntN(len(urls))], IP: v.ip}
	// Float64 is below 1, so that share 1 is every click; it is drawn even at share 0, so that the share does not change which clicks these are.
	if g.rng.Float64() >= g.cfg.BadShare {
		return None
	}
	d := Defect(1 + g.index%int64(defects-1))
	switch d {
	case BadUserID:
		c.UserID = -(g.index % 2)
	case BadIP:
		c.IP = badIPs[g.index/int64(defects-1)%int64(len(badIPs))]
	}
	return d
}

func (g *Generator) session() string {
	var u uuid.UUID
	a, b := g.rng.Uint64(), g.rng.Uint64()
	for i := range 8 {
		u[i], u[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // version 4, RFC 9562's variant
	return u.String()
}

// Damage makes an encoded click undecodable if that is the defect; any other defect leaves it as it is.
func (d Defect) Damage(value []byte) []byte {
	switch {
	case d == BadMagic && len(value) > 0:
		value[0] = 0x7f
	case d == BadTruncated && len(value) > 0:
		value = value[:len(value)-1] // the ip's length is then longer than what follows it
	}
	return value
}

// Addresses as they are found in the wild where one should be: out of range, a name, a network, nothing.
var badIPs = []string{"256.1.2.3", "localhost", "203.0.113.0/24", "", "1.2.3", "2001:db8::g"}

// urls are the pages of a shop; a fixed table, so that a click costs no formatting.
var urls = func() (all []string) {
	for i := range 400 {
		all = append(all, "https://shop.example/product/"+strconv.Itoa(1000+i*7))
	}
	for i, q := range []string{"lamp", "chair", "desk", "rug", "clock", "mug", "caf%C3%A9+table", "sofa"} {
		for page := range 8 {
			all = append(all, fmt.Sprintf("https://shop.example/search?q=%s&page=%d", q, page+1))
		}
		all = append(all, fmt.Sprintf("https://shop.example/category/%d?utm_source=newsletter", i+1))
	}
	return append(all, "https://shop.example/", "https://shop.example/cart", "https://shop.example/checkout", "https://shop.example/help")
}()

// Source gives clicks one after another.
type Source interface {
	// Next fills c with the next click. It returns io.EOF after the last one and ctx's error when ctx ends while it waits for more.
	Next(ctx context.Context, c *schema.Click) (Defect, error)
}

// Made is a Generator as a Source that never ends.
type Made struct{ *Generator }

// Next never returns an error.
func (m Made) Next(_ context.Context, c *schema.Click) (Defect, error) {
	return m.Generator.Next(c), nil
}
