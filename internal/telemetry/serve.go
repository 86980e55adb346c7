package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// vitals answers the three questions; each is "" or why not.
type vitals interface {
	Live() string
	Ready() string
	Started() string
}

// well is always all of it: whoever answers, is.
type well struct{}

func (well) Live() string    { return "" }
func (well) Ready() string   { return "" }
func (well) Started() string { return "" }

func serve(ctx context.Context, addr string, reg *prometheus.Registry, v vitals, console http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	for path, ask := range map[string]func() string{"/livez": v.Live, "/healthz": v.Live, "/readyz": v.Ready, "/startupz": v.Started} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if why := ask(); why != "" {
				http.Error(w, why, http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	if console != nil {
		mux.Handle("/console/", console)
	}
	return listen(ctx, "http.addr", addr, mux)
}

// ServeDebug answers what is for whoever is on this machine, and for nobody else: Go's profiles (/debug/pprof/), the log's level (/debug/log/level:
// GET tells it, PUT with level=debug changes it until the process ends), and what runs with which settings (/debug/info). Settings must be redacted.
func ServeDebug(ctx context.Context, addr string, level zap.AtomicLevel, build string, settings map[string]any) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", func(w http.ResponseWriter, _ *http.Request) { // a command line may have a secret in it
		http.Error(w, "not told: see /debug/info", http.StatusNotFound)
	})
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/log/level", level)
	mux.HandleFunc("/debug/info", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"build": buildInfo(build), "settings": settings}) // who asked is gone
	})
	return listen(ctx, "debug.addr", addr, mux)
}

func buildInfo(version string) map[string]string {
	out := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" || s.Key == "vcs.time" || s.Key == "vcs.modified" || s.Key == "-tags" {
				out[s.Key] = s.Value
			}
		}
	}
	return out
}

func listen(ctx context.Context, setting, addr string, h http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w (set it to another address, or to nothing)", setting, err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = srv.Shutdown(c) // the process ends
	}()
	go func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			_ = l.Close()
		}
	}()
	return nil
}
