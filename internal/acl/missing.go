package acl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// Missing asks the brokers (KIP-430) which of the rules we lack. What they don't tell is not in it: transactional ids, topics and
// groups that do not exist.
func Missing(ctx context.Context, adm *kadm.Client, rules []Rule) ([]Rule, error) {
	type resource struct {
		t    Type
		name string
	}
	type rights struct {
		none, unknown bool
		ops           []kadm.ACLOperation
	}
	known := map[resource]rights{}
	var missing []Rule
	for _, r := range rules {
		at := resource{r.Type, r.Name}
		have, asked := known[at]
		if !asked {
			var err error
			switch r.Type {
			case Topic: // one by one: an error of one would be the error of all
				var ts kadm.TopicDetails
				if ts, err = adm.ListTopics(kadm.WithAuthorizedOps(ctx), r.Name); err == nil {
					have.ops, err = ts[r.Name].AuthorizedOperations, ts[r.Name].Err
				}
			case Group:
				var gs kadm.DescribedGroups
				if gs, err = adm.DescribeGroups(ctx, r.Name); err == nil {
					have.ops, err = gs[r.Name].AuthorizedOperations, gs[r.Name].Err
				}
			}
			switch {
			case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
				have.none = true
			case err != nil && !errors.As(err, new(*kerr.Error)):
				return nil, fmt.Errorf("ask kafka what we may do: %w", err)
			}
			have.unknown = !have.none && len(have.ops) == 0
			known[at] = have
		}
		if !have.unknown && !slices.Contains(have.ops, operations[r.Operation]) {
			missing = append(missing, r)
		}
	}
	return missing, nil
}

var operations = map[Operation]kadm.ACLOperation{
	Read: kmsg.ACLOperationRead, Write: kmsg.ACLOperationWrite, Create: kmsg.ACLOperationCreate, Describe: kmsg.ACLOperationDescribe,
	DescribeConfigs: kmsg.ACLOperationDescribeConfigs,
}

// Denied says what is not allowed: the rules that are missing, or may be. err may be nil.
func Denied(missing []Rule, err error) error {
	needs := make([]string, len(missing))
	for i := range missing {
		needs[i] = missing[i].String()
	}
	return &security.Error{Says: "kafka does not allow it: we need " + strings.Join(needs, ", ") + " (exactly setup --print-acls lists all)", Err: err}
}

// Explain makes an error that says what is not allowed of one that either client returned; any other it returns as it is. The brokers are
// asked what exactly is missing, for 5 s at most; where they don't tell, it is the role's rules on that kind of resource.
func Explain(ctx context.Context, c *config.Config, role Role, err error) error {
	if err == nil || errors.As(err, new(*security.Error)) {
		return err
	}
	var t Type
	undelivered := security.Undelivered(err) // for want of a right, or for another reason
	switch security.KafkaCode(err) {
	case kerr.TopicAuthorizationFailed.Code, kerr.ClusterAuthorizationFailed.Code: // the latter: idempotent, and may write to no topic at all (KIP-679)
		t = Topic
	case kerr.GroupAuthorizationFailed.Code:
		t = Group
	case kerr.TransactionalIDAuthorizationFailed.Code:
		t = TransactionalID
	default:
		if !undelivered {
			return err
		}
		t = Topic
	}
	rules := slices.DeleteFunc(Rules(c, role), func(r Rule) bool { return r.Type != t })
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	cl, cerr := security.NewClient(&c.Kafka)
	if cerr == nil {
		defer cl.Close()
		if missing, merr := Missing(ctx, kadm.NewClient(cl), rules); merr == nil && len(missing) > 0 {
			return Denied(missing, err)
		}
	}
	if undelivered {
		return err
	}
	return Denied(rules, err)
}
