package request

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/external"
)

const (
	// signersAnnotation of the namespace default maps kinds of external issuers to their resources,
	// for the policy perennial-approval-external. Administrators have an annotation of their own,
	// which takes precedence.
	signersAnnotation = "perennial.dev/installed-signers"
	// maxSigners is how many kinds are written there.
	maxSigners = 200
	// signersLife is how long an entry is assumed to be there without a check.
	signersLife = time.Hour
	// signersSettle is how long the policy takes at most to see an entry.
	signersSettle = 2 * time.Second
)

// signers keeps the map of the admission policy from kinds of external issuers to their resources.
// It has the kinds that requests refer to and that the cluster serves.
type signers struct {
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock

	mu   sync.Mutex
	seen map[schema.GroupKind]time.Time
}

// publish writes a kind into the map, and reports whether that changed it.
func (s *signers) publish(ctx context.Context, kind *external.Kind) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock() // one write at a time, as all are to one object
	now, of := s.clock.Now(), kind.GroupKind()
	if at, ok := s.seen[of]; ok && now.Sub(at) < signersLife {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, permissionTimeout)
	defer cancel()
	namespace := &corev1.Namespace{}
	if err := s.live.Get(ctx, client.ObjectKey{Name: metav1.NamespaceDefault}, namespace); err != nil {
		return false, fmt.Errorf("read the namespace %s: %w", metav1.NamespaceDefault, err)
	}
	entries, changed := withSigner(namespace.Annotations[signersAnnotation], kind)
	if changed {
		next := namespace.DeepCopy()
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, signersAnnotation, entries)
		patch := client.MergeFromWithOptions(namespace, client.MergeFromWithOptimisticLock{})
		if err := s.client.Patch(ctx, next, patch, client.DisableReadYourWritesConsistency); err != nil {
			return false, fmt.Errorf("write the resource of %s into the namespace %s: %w", kind.Kind, metav1.NamespaceDefault,
				err)
		}
	}
	if s.seen == nil || len(s.seen) >= maxSigners {
		s.seen = map[schema.GroupKind]time.Time{}
	}
	s.seen[of] = now
	return changed, nil
}

// withSigner adds a kind to the entries of the map, or corrects its entry, and reports whether that
// changed anything.
func withSigner(entries string, kind *external.Kind) (with string, changed bool) {
	scope := "Cluster"
	if kind.Namespaced {
		scope = "Namespaced"
	}
	key := kind.Kind + "." + kind.Group + "="
	entry := key + kind.Resource + "/" + scope
	all := slices.DeleteFunc(strings.Split(entries, ","), func(e string) bool { return e == "" })
	if slices.Contains(all, entry) {
		return entries, false
	}
	all = slices.DeleteFunc(all, func(e string) bool { return strings.HasPrefix(e, key) })
	if len(all) >= maxSigners {
		return entries, false
	}
	all = append(all, entry)
	slices.Sort(all)
	return strings.Join(all, ","), true
}
