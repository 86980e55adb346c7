package clicks

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/exactly-pipeline/exactly/schema"
)

// jsonClick is one line of NDJSON. Other members are ignored: real event logs have dozens.
type jsonClick struct {
	UserID    json.RawMessage `json:"user_id"`
	SessionID string          `json:"session_id"`
	Timestamp json.RawMessage `json:"timestamp"`
	URL       string          `json:"url"`
	IP        string          `json:"ip"`
	UserAgent string          `json:"user_agent"` // only to tell visitors apart where user_id or session_id is not given
}

// What can be wrong with a line of NDJSON. The messages never contain a value: one may be an address.
var (
	errNotObject = errors.New("not a JSON object")
	errJSONUser  = errors.New("user_id must be a whole number of 1 or more")
	errJSONTime  = errors.New("timestamp must be milliseconds since 1970 or RFC 3339 text")
	errJSONURL   = errors.New("url is missing")
	errJSONIP    = errors.New("ip is not an address")
)

// parseJSONLine reads one object into c. A user_id or session_id that is not given is derived as for an access log, and a session_id
// that is not a UUID is hashed to one, so that equal ones stay equal. What is given and wrong is an error: it is not guessed at.
func parseJSONLine(line []byte, vs *visitors, c *schema.Click) error {
	var j jsonClick
	if err := json.Unmarshal(line, &j); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return fmt.Errorf("%s must be %s", kind.Field, kind.Type)
		}
		return errNotObject
	}
	ip, err := netip.ParseAddr(j.IP)
	if err != nil {
		return errJSONIP
	}
	if j.URL == "" {
		return errJSONURL
	}
	at, err := jsonTime(j.Timestamp)
	if err != nil {
		return err
	}
	v := visitor{ip: ip.Unmap().WithZone("").String(), agent: j.UserAgent}
	user := v.userID()
	if len(j.UserID) > 0 && string(j.UserID) != "null" {
		if json.Unmarshal(j.UserID, &user) != nil || user < 1 {
			return errJSONUser
		}
	}
	switch {
	case j.SessionID == "":
		j.SessionID = vs.sessionID(v, at)
	default:
		if u, err := uuid.Parse(j.SessionID); err == nil {
			j.SessionID = u.String()
		} else {
			j.SessionID = uuid.NewSHA1(sessionSpace, []byte(j.SessionID)).String()
		}
	}
	*c = schema.Click{UserID: user, SessionID: j.SessionID, TimestampMs: at, URL: j.URL, IP: v.ip}
	return nil
}

// jsonTime reads a timestamp into ms since the Unix epoch.
func jsonTime(raw json.RawMessage) (int64, error) {
	var ms int64
	if len(raw) > 0 && string(raw) != "null" && json.Unmarshal(raw, &ms) == nil {
		return ms, nil
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return 0, errJSONTime
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text)) // RFC 3339 allows a small t and z
	if err != nil {
		return 0, errJSONTime
	}
	return t.UnixMilli(), nil
}
