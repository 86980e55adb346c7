package config

import "github.com/exactly-pipeline/exactly/internal/replicas"

// Kubernetes is how a worker that is a pod asks, when it is stopped, whether it is to come back.
type Kubernetes struct {
	StatefulSet string `koanf:"stateful_set"` // which this worker is a pod of; empty: nobody is asked, and leave_on_stop decides
	AccountDir  string `koanf:"account_dir"`  // where the pod's token is, the API's authority, and the namespace
}

func (k *Kubernetes) validate(bad func(setting, format string, a ...any), worker string) {
	if k.StatefulSet == "" {
		return
	}
	if _, err := replicas.Ordinal(k.StatefulSet, worker); err != nil {
		bad("kubernetes.stateful_set", "worker.id %v", err)
	}
	if k.AccountDir == "" {
		bad("kubernetes.account_dir", "must be the folder of the pod's token")
	}
}
