package guard

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// entry is a line of the file of tokens: NAME ROLE sha256:HEX. The token itself is nowhere.
type entry struct {
	name string
	role Role
	hash [32]byte
}

func hash(token string) [32]byte { return sha256.Sum256([]byte(token)) }

var personName = regexp.MustCompile(`^[\pL\pN._@-]{1,64}$`)

// NewToken makes a token, and the line for the file.
func NewToken(name string, role Role) (token, line string, err error) {
	if !personName.MatchString(name) {
		return "", "", fmt.Errorf("%q must be 1 to 64 letters, digits, dots, underscores, hyphens or @", name)
	}
	if role != Viewer && role != Operator {
		return "", "", fmt.Errorf("%q must be %s or %s", role, Viewer, Operator)
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	token = "exactly_" + base64.RawURLEncoding.EncodeToString(b)
	h := hash(token)
	return token, fmt.Sprintf("%s %s sha256:%s", name, role, hex.EncodeToString(h[:])), nil
}

// tokens is the file, read again when it changes. While it can't be read, or a line of it is wrong, nobody has a token.
type tokens struct {
	file string

	mu      sync.Mutex
	checked time.Time
	changed time.Time
	size    int64
	entries []entry
}

// find is the line of a token. Every line is compared, whichever is right, each in constant time.
func (t *tokens) find(h [32]byte) (found entry, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read()
	for _, e := range t.entries {
		if subtle.ConstantTimeCompare(e.hash[:], h[:]) == 1 {
			found, ok = e, true
		}
	}
	return found, ok
}

// read reads the file if it has changed, and looks at most once a second.
func (t *tokens) read() {
	if time.Since(t.checked) < time.Second {
		return
	}
	t.checked = time.Now()
	i, err := os.Stat(t.file)
	if err == nil && i.ModTime().Equal(t.changed) && i.Size() == t.size {
		return
	}
	t.entries = nil
	if err != nil {
		return
	}
	b, err := os.ReadFile(t.file)
	if err != nil {
		return
	}
	if t.entries, err = parseTokens(b); err == nil {
		t.changed, t.size = i.ModTime(), i.Size()
	}
}

// CheckTokens says what is wrong with a file of tokens.
func CheckTokens(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	es, err := parseTokens(b)
	if err == nil && len(es) == 0 {
		err = fmt.Errorf("there is no token in it: exactly console token makes one")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func parseTokens(b []byte) ([]entry, error) {
	var out []entry
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || !personName.MatchString(f[0]) || Role(f[1]) != Viewer && Role(f[1]) != Operator {
			return nil, fmt.Errorf("line %d is not NAME %s|%s sha256:HEX", n, Viewer, Operator)
		}
		h, err := hex.DecodeString(strings.TrimPrefix(f[2], "sha256:"))
		if err != nil || len(h) != 32 || !strings.HasPrefix(f[2], "sha256:") {
			return nil, fmt.Errorf("line %d has no sha256: of a token", n)
		}
		out = append(out, entry{f[0], Role(f[1]), [32]byte(h)})
	}
	return out, s.Err()
}
