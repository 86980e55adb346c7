// Package replicas owns one question: is this pod of a StatefulSet to come back? A rolling update and a scale-down both end a worker by the same
// SIGTERM; only what the StatefulSet asks for tells them apart.
//
// It promises an answer within the context given, and says when it had none. It never changes anything in the cluster, nor asks before a worker ends.
package replicas

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Mount is where Kubernetes puts a pod's token, the authority of its API, and its namespace.
const Mount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Ask is how to ask about a pod.
type Ask struct {
	StatefulSet string
	Pod         string // its name: the StatefulSet's, a hyphen, its ordinal
	Dir         string // Mount
	Address     string // host:port of the API
}

// Here is how a pod asks about itself: Kubernetes says in each one's environment where its API is.
func Here(statefulSet, pod, dir string) Ask {
	return Ask{StatefulSet: statefulSet, Pod: pod, Dir: dir, Address: net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))}
}

// Ordinal is that of a StatefulSet's pod.
func Ordinal(statefulSet, pod string) (int, error) {
	rest, ok := strings.CutPrefix(pod, statefulSet+"-")
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no pod of the StatefulSet %q, such as %s-0", pod, statefulSet, statefulSet)
	}
	return n, nil
}

// ComesBack says whether the StatefulSet, as it is now, has this pod: false after it was scaled below it, or deleted.
func (a Ask) ComesBack(ctx context.Context) (bool, error) {
	ordinal, err := Ordinal(a.StatefulSet, a.Pod)
	if err != nil {
		return false, err
	}
	what := func(err error) error {
		return fmt.Errorf("ask Kubernetes for the replicas of the StatefulSet %s: %w", a.StatefulSet, err)
	}
	status, body, err := a.get(ctx)
	switch {
	case err != nil:
		return false, what(err)
	case status == http.StatusNotFound:
		return false, nil
	case status != http.StatusOK:
		return false, what(fmt.Errorf("it answers %d: the ServiceAccount needs get on this StatefulSet, see configs/kubernetes/components/keep-place", status))
	}
	var set struct {
		Metadata struct {
			DeletionTimestamp *time.Time `json:"deletionTimestamp"`
		} `json:"metadata"`
		Spec struct {
			Replicas *int `json:"replicas"`
			Ordinals struct {
				Start int `json:"start"`
			} `json:"ordinals"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return false, what(err)
	}
	if set.Spec.Replicas == nil {
		return false, what(errors.New("its answer has no spec.replicas"))
	}
	first := set.Spec.Ordinals.Start
	return set.Metadata.DeletionTimestamp == nil && first <= ordinal && ordinal < first+*set.Spec.Replicas, nil
}

// mostAnswer bounds what is read of an answer, in bytes: a StatefulSet with a long history of annotations is below.
const mostAnswer = 4 << 20

func (a Ask) get(ctx context.Context) (status int, body []byte, err error) {
	var read [3][]byte
	for i, name := range []string{"token", "ca.crt", "namespace"} {
		if read[i], err = os.ReadFile(filepath.Join(a.Dir, name)); err != nil {
			return 0, nil, fmt.Errorf("%w (automountServiceAccountToken?)", err)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read[1]) {
		return 0, nil, fmt.Errorf("%s has no certificate", filepath.Join(a.Dir, "ca.crt"))
	}
	url := fmt.Sprintf("https://%s/apis/apps/v1/namespaces/%s/statefulsets/%s", a.Address, strings.TrimSpace(string(read[2])), a.StatefulSet)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(read[0])))
	req.Header.Set("Accept", "application/json")
	cl := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	res, err := cl.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	body, err = io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	return res.StatusCode, body, err
}
