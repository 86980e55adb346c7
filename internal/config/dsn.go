package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// CurrentDSN is the address of the database with its password as both are now: where they are in files, those are read again. Whoever
// lives long asks for it at each new connection.
func (p *Postgres) CurrentDSN() (string, error) {
	dsn, err := read("postgres.dsn", Secret(p.DSN), p.DSNFile)
	if err != nil {
		return "", err
	}
	password, err := read("postgres.password", p.Password, p.PasswordFile)
	if err != nil || password == "" {
		return dsn, err
	}
	return withPassword(dsn, password), nil
}

// settle finds what is wrong with the database's address and makes p.DSN complete. given says that postgres.dsn was, and is not the default.
func (p *Postgres) settle(given bool) error {
	if given && p.DSNFile != "" {
		return fmt.Errorf("%s: given together with %s: give one of them", both("postgres.dsn"), both("postgres.dsn_file"))
	}
	if err := check("postgres.password", p.Password, p.PasswordFile); err != nil {
		return err
	}
	dsn, err := read("postgres.dsn", Secret(p.DSN), p.DSNFile)
	if err != nil {
		return err
	}
	if (p.Password != "" || p.PasswordFile != "") && hasPassword(dsn) {
		return fmt.Errorf("%s: given, and so is a password in %s: give one of them", both("postgres.password"), both("postgres.dsn"))
	}
	if err := checkDSN(dsn); err != nil {
		return err
	}
	p.DSN, err = p.CurrentDSN()
	return err
}

// checkDSN never says a word of the DSN itself: where it can't be read, anything in it may be the password.
func checkDSN(dsn string) error {
	if u, err := url.Parse(dsn); dsn == "" || (strings.Contains(dsn, "://") && (err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql"))) {
		return fmt.Errorf("%s: must be postgres://user:password@host:port/database or key=value pairs", both("postgres.dsn"))
	}
	_, err := pgconn.ParseConfig(RedactDSN(dsn)) // reads the files that sslrootcert, sslcert and sslkey name
	if err == nil {
		return nil
	}
	text := "it can't be read"
	if inner := errors.Unwrap(err); inner != nil {
		text = inner.Error()
	}
	return fmt.Errorf("%s: must be postgres://user:password@host:port/database or key=value pairs: %s", both("postgres.dsn"), text)
}

var (
	dsnPassword    = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:\\.|\S)+)`) // sslpassword, too
	dsnOwnPassword = regexp.MustCompile(`(?i)(?:^|\s)password\s*=\s*('(?:[^'\\]|\\.)*'?|(?:\\.|\S)+)`)
	dsnQuote       = strings.NewReplacer(`\`, `\\`, `'`, `\'`)
)

func hasPassword(dsn string) bool {
	if !strings.Contains(dsn, "://") {
		return dsnOwnPassword.MatchString(dsn)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return false
	}
	_, has := u.User.Password()
	return has || u.Query().Has("password")
}

// withPassword puts the password in, in place of one that is there.
func withPassword(dsn, password string) string {
	if !strings.Contains(dsn, "://") {
		return dsnOwnPassword.ReplaceAllString(dsn, "") + " password='" + dsnQuote.Replace(password) + "'"
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn // found wrong by checkDSN
	}
	// The rest of the query stays as it is written: Postgres' clients take a plus sign for one, url.Values for a space.
	q := slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(kv string) bool { return kv == "" || strings.HasPrefix(kv, "password=") })
	if name := u.User.Username(); name != "" {
		u.User = url.UserPassword(name, password)
	} else {
		q = append(q, "password="+strings.ReplaceAll(url.QueryEscape(password), "+", "%20"))
	}
	u.RawQuery = strings.Join(q, "&")
	return u.String()
}

// RedactDSN is a Postgres DSN without its password, fit to be printed.
func RedactDSN(dsn string) string {
	if strings.Contains(dsn, "://") {
		return redactURL(dsn)
	}
	return dsnPassword.ReplaceAllString(dsn, "${1}"+redacted)
}

func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(unreadable)"
	}
	q := u.Query()
	for k := range q { // libpq takes the password from here, too
		if strings.Contains(strings.ToLower(k), "password") {
			q.Set(k, redacted)
			u.RawQuery = q.Encode()
		}
	}
	return u.Redacted()
}
