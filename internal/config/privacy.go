package config

import "fmt"

// Privacy is what is kept of what identifies people.
type Privacy struct {
	IP        string `koanf:"ip"`          // keep, truncate (/24, /48) or hash (a pseudonym), at capture, in row and event alike
	IPKeyFile string `koanf:"ip_key_file"` // file that holds the key of hash
}

func (p *Privacy) validate(bad func(setting, format string, a ...any)) {
	if !oneOf(p.IP, "keep", "truncate", "hash") {
		bad("privacy.ip", "%q must be keep, truncate or hash", p.IP)
	}
	if p.IP == "hash" && p.IPKeyFile == "" {
		bad("privacy.ip_key_file", "must name a file with a key of 16 bytes or more where addresses are hashed")
	}
}

// IPKey reads the key of hash as it is now; nil where none is needed.
func (p *Privacy) IPKey() ([]byte, error) {
	if p.IP != "hash" {
		return nil, nil
	}
	key, err := read("privacy.ip_key", "", p.IPKeyFile)
	if err == nil && len(key) < 16 {
		err = fmt.Errorf("%s: %s has %d bytes: must be 16 or more", both("privacy.ip_key_file"), p.IPKeyFile, len(key))
	}
	return []byte(key), err
}
