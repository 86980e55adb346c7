// Package pages owns what the console looks like: its templates, style sheet and script, embedded, and how numbers and times are written.
//
// It promises pages that need nothing from elsewhere and no script to be of use, and that every value is escaped. It never asks a store.
package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"

	"github.com/exactly-pipeline/exactly/internal/console/guard"
)

//go:embed assets templates
var files embed.FS

// Frame is what every page has around its own.
type Frame struct {
	Title      string
	Prefix     string
	Build      string // changes when the assets do
	Theme      string // dark, light; empty: as the system has it
	OtherTheme string
	Where      string // which deployment
	Person     guard.Person
	CSRF       string
	Nav        []Link
	Page       any
}

// Link is a view in the bar.
type Link struct {
	Name, Path string
	Here       bool
}

// Pages are the templates, ready to be used by many at once.
type Pages struct {
	all   map[string]*template.Template
	build string
}

// New parses the templates.
func New() (*Pages, error) {
	p := &Pages{all: map[string]*template.Template{}}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(n, "templates/"), ".html")
		if name == "layout" {
			continue
		}
		t, err := template.New(name).Funcs(funcs).ParseFS(files, "templates/layout.html", n)
		if err != nil {
			return nil, fmt.Errorf("read the console's template %s: %w", name, err)
		}
		p.all[name] = t
	}
	h := sha256.New()
	for _, a := range []string{"console.css", "console.js"} {
		b, err := files.ReadFile("assets/" + a)
		if err != nil {
			return nil, err
		}
		h.Write(b)
	}
	p.build = hex.EncodeToString(h.Sum(nil))[:12]
	return p, nil
}

// Write writes a page, whole or not at all.
func (p *Pages) Write(w http.ResponseWriter, code int, name string, f Frame) error {
	return p.write(w, code, name, "layout", f)
}

// Part writes the live part of a page.
func (p *Pages) Part(w http.ResponseWriter, name string, f Frame) error {
	return p.write(w, http.StatusOK, name, "live", f)
}

func (p *Pages) write(w http.ResponseWriter, code int, name, part string, f Frame) error {
	f.Build = p.build
	var b bytes.Buffer
	if err := p.all[name].ExecuteTemplate(&b, part, f); err != nil {
		return fmt.Errorf("write the page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if code != 0 {
		w.WriteHeader(code)
	}
	_, _ = w.Write(b.Bytes()) // whoever asked is gone
	return nil
}

// Assets serves style sheet, script and icon.
func Assets(prefix string) http.Handler {
	sub, err := fs.Sub(files, "assets")
	if err != nil {
		panic("pages: the embedded files lack their folder: " + err.Error())
	}
	serve := http.StripPrefix(prefix, http.FileServerFS(sub))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "private, max-age=3600")
		serve.ServeHTTP(w, r)
	})
}
