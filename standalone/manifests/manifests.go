// Package manifests keeps a Kubernetes API in sync with a directory of YAML files: it applies the
// objects in the files, and applies them again when a file changes. An error in one file does not
// affect the others.
package manifests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/perennial-pki/perennial/internal/version"
)

// fieldManager owns the fields that are applied.
const fieldManager = "perenniald"

// Options says which directory is applied, and how.
type Options struct {
	// Dir is the directory. Files in it and below it are applied if their name ends in .yaml, .yml or
	// .json.
	Dir string
	// Prune deletes applied objects that are no longer in any file. Without it, they stay, and are no
	// longer tracked.
	Prune bool
	// Report is called for each event, one call at a time. Required.
	Report func(Report)
	// Rescan is the interval for reading the directory without a change event, for file systems that
	// send none. A minute if zero.
	Rescan time.Duration
}

// Action is the kind of an event.
type Action string

const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
	Pruned     Action = "pruned"
	// Left means that the object is no longer in a file, and stays because Prune is off.
	Left Action = "left"
	// Failed means that Err says why.
	Failed Action = "failed"
)

// Report is one event.
type Report struct {
	// File and line of the object. Line is 0 if the event is about the file as a whole; File is empty
	// if it is not about a file.
	File string
	Line int
	// Object is its kind, namespace and name, such as "Certificate default/web". Empty if the event is
	// about a file as a whole.
	Object string
	Action Action
	// Note is the reason why an object was left.
	Note string
	Err  error
}

// String is one line for people.
func (r Report) String() string {
	var b strings.Builder
	if r.File != "" {
		b.WriteString(r.File)
		if r.Line > 0 {
			fmt.Fprintf(&b, ":%d", r.Line)
		}
		b.WriteString(": ")
	}
	if r.Object != "" {
		b.WriteString(r.Object)
		if r.Err != nil {
			b.WriteString(": ")
		} else {
			b.WriteString(" " + string(r.Action))
		}
	}
	if r.Err != nil {
		b.WriteString(strings.Join(strings.Fields(r.Err.Error()), " "))
	}
	if r.Note != "" {
		b.WriteString(": " + r.Note)
	}
	return b.String()
}

// An Applier keeps the API in sync with the directory. Its methods must be called from one
// goroutine.
type Applier struct {
	o         Options
	client    dynamic.Interface
	metadata  metadata.Interface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
	inventory *inventory

	dirs []string // that were read

	mu      sync.Mutex
	applied map[key][sha256.Size]byte // digest of the text that was last applied
	said    map[string]string         // what was last reported about a file or an object that failed
}

// New returns an Applier for the API of config.
func New(config *rest.Config, o Options) (*Applier, error) {
	if o.Rescan == 0 {
		o.Rescan = time.Minute
	}
	config = rest.CopyConfig(config)
	config.UserAgent = version.UserAgent("perenniald-manifests")
	var err error
	a := &Applier{o: o, applied: map[key][sha256.Size]byte{}, said: map[string]string{}}
	if a.client, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("client for manifests: %w", err)
	}
	if a.metadata, err = metadata.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("client for manifests: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for manifests: %w", err)
	}
	a.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for manifests: %w", err)
	}
	a.inventory = &inventory{client: typed}
	return a, nil
}

// Sync reads the directory once and applies what has changed since the last time. It returns an
// error if something must be retried; Report has the details.
func (a *Applier) Sync(ctx context.Context) error {
	files, dirs, err := readDir(a.o.Dir)
	a.dirs = dirs
	if err != nil {
		err = fmt.Errorf("read the directory of manifests: %w", err)
		a.fail(a.o.Dir, Report{File: a.o.Dir, Action: Failed, Err: err})
		return err
	}
	a.well(a.o.Dir)
	if err := a.inventory.load(ctx); err != nil {
		a.fail("inventory", Report{Action: Failed, Err: err})
		return err
	}
	a.well("inventory")

	var documents []*document
	broken := map[string]bool{}
	for _, f := range files {
		if f.err != nil {
			broken[f.path] = true
			a.fail(f.path, Report{File: f.path, Line: f.err.line, Action: Failed, Err: f.err})
			continue
		}
		a.well(f.path)
		documents = append(documents, f.documents...)
	}
	wanted, failed := a.apply(ctx, documents, broken)
	if err := a.prune(ctx, wanted, broken); err != nil {
		a.fail("prune", Report{Action: Failed, Err: err})
		failed = true
	} else {
		a.well("prune")
	}
	if failed {
		a.mapper.Reset() // a kind may have been added or removed
		return errors.New("not everything could be applied")
	}
	return nil
}

// rank is the order in which kinds are applied: dependencies first.
func rank(d *document) int {
	switch k := d.object.GroupVersionKind(); {
	case k.Group == "" && k.Kind == "Namespace":
		return 0
	case k.Group == "apiextensions.k8s.io":
		return 1
	case k.Group == "rbac.authorization.k8s.io",
		k.Group == "" && (k.Kind == "ServiceAccount" || k.Kind == "Secret" || k.Kind == "ConfigMap"):
		return 2
	default:
		return 3
	}
}

// apply applies the documents. It returns the objects in the files, and whether some failed. It
// adds files with an object of unknown scope to broken.
func (a *Applier) apply(ctx context.Context, documents []*document, broken map[string]bool) (map[key]*document, bool) {
	wanted := map[key]*document{}
	failed := false
	var todo []*document
	var unknown []*document
	for _, d := range documents {
		mapping, err := a.mapping(d)
		if err != nil {
			// A definition in another file may add its kind.
			unknown = append(unknown, d)
			continue
		}
		if !a.place(d, mapping, wanted) {
			failed = true
			continue
		}
		todo = append(todo, d)
	}
	if err := a.inventory.save(ctx, a.inventory.with(wanted)); err != nil {
		a.fail("inventory", Report{Action: Failed, Err: err})
		for _, d := range documents {
			broken[d.file] = true
		}
		return wanted, true
	}

	before := map[schema.GroupVersionResource]map[string]string{}
	slices.SortStableFunc(todo, func(x, y *document) int { return rank(x) - rank(y) })
	for len(todo) > 0 {
		n := slices.IndexFunc(todo, func(d *document) bool { return rank(d) != rank(todo[0]) })
		if n < 0 {
			n = len(todo)
		}
		if !a.applyAll(ctx, todo[:n], before) {
			failed = true
		}
		todo = todo[n:]
	}
	if len(unknown) > 0 {
		rest := a.applyUnknown(ctx, unknown, wanted, before)
		for _, d := range rest {
			broken[d.file] = true
		}
		failed = failed || len(rest) > 0
	}
	return wanted, failed
}

// place sets the namespace of the object by the scope of its kind and adds it to wanted. It returns
// false if another document has the same object.
func (a *Applier) place(d *document, mapping *meta.RESTMapping, wanted map[key]*document) bool {
	switch {
	case mapping.Scope.Name() != meta.RESTScopeNameNamespace:
		d.object.SetNamespace("")
	case d.object.GetNamespace() == "":
		d.object.SetNamespace(metav1.NamespaceDefault)
	}
	if other, ok := wanted[d.key()]; ok && other != d {
		a.failDocument(d, fmt.Errorf("it is also in %s:%d: remove one of the two", other.file, other.line))
		return false
	}
	wanted[d.key()] = d
	return true
}

// How long it may take until the kinds of just applied definitions are served.
const definitionPatience = 10 * time.Second

// applyUnknown applies documents whose kind was not served. It waits for kinds that have a
// definition by now. It returns the documents that could not be applied.
func (a *Applier) applyUnknown(
	ctx context.Context,
	documents []*document,
	wanted map[key]*document,
	before map[schema.GroupVersionResource]map[string]string,
) (failed []*document) {
	promised := map[schema.GroupKind]bool{}
	for _, d := range wanted {
		if kind, ok := defines(d.object); ok {
			promised[kind] = true
		}
	}
	deadline := time.NewTimer(definitionPatience)
	defer deadline.Stop()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var ready, still []*document
		for _, d := range documents {
			mapping, err := a.mapping(d)
			switch {
			case err == nil && a.place(d, mapping, wanted):
				ready = append(ready, d)
			case err == nil:
				failed = append(failed, d)
			case promised[d.key().GroupKind]:
				still = append(still, d)
			default:
				a.failDocument(d, unknownKind(d, err))
				failed = append(failed, d)
			}
		}
		if len(ready) > 0 {
			if err := a.inventory.save(ctx, a.inventory.with(wanted)); err != nil {
				a.fail("inventory", Report{Action: Failed, Err: err})
				return append(failed, documents...)
			}
			if !a.applyAll(ctx, ready, before) {
				failed = append(failed, ready...)
			}
		}
		if documents = still; len(documents) == 0 {
			return failed
		}
		select {
		case <-ctx.Done():
			return append(failed, documents...)
		case <-deadline.C:
			for _, d := range documents {
				_, err := a.mapping(d)
				a.failDocument(d, unknownKind(d, err))
			}
			return append(failed, documents...)
		case <-ticker.C:
			a.mapper.Reset()
		}
	}
}

func unknownKind(d *document, err error) error {
	if meta.IsNoMatchError(err) {
		return fmt.Errorf("the API server does not know kind %s of %s", d.object.GetKind(), d.object.GetAPIVersion())
	}
	return err
}

func (a *Applier) mapping(d *document) (*meta.RESTMapping, error) {
	gvk := d.object.GroupVersionKind()
	return a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
}

// applyAll applies documents of known kinds, several at a time.
func (a *Applier) applyAll(
	ctx context.Context,
	documents []*document,
	before map[schema.GroupVersionResource]map[string]string,
) bool {
	var group errgroup.Group
	group.SetLimit(8)
	for _, d := range documents {
		sum := sha256.Sum256(append([]byte(d.object.GetAPIVersion()+"\n"), mustJSON(d)...))
		a.mu.Lock()
		same := a.applied[d.key()] == sum
		a.mu.Unlock()
		if same {
			continue
		}
		mapping, err := a.mapping(d)
		if err != nil {
			group.Go(func() error { a.failDocument(d, err); return err })
			continue
		}
		known, ok := before[mapping.Resource]
		if !ok {
			known = a.versions(ctx, mapping.Resource)
			before[mapping.Resource] = known
		}
		group.Go(func() error {
			err := a.applyOne(ctx, mapping, d, known)
			if err != nil {
				a.failDocument(d, err)
				return err
			}
			a.mu.Lock()
			a.applied[d.key()] = sum
			a.mu.Unlock()
			return nil
		})
	}
	return group.Wait() == nil
}

func mustJSON(d *document) []byte {
	content, err := d.object.MarshalJSON()
	if err != nil { // it came from YAML, so it always encodes
		panic(err)
	}
	return content
}

// versions returns the resource versions of all objects of a kind, to detect what an apply changed.
// It reads only their metadata, once.
func (a *Applier) versions(ctx context.Context, resource schema.GroupVersionResource) map[string]string {
	found := map[string]string{}
	options := metav1.ListOptions{Limit: 1000}
	for {
		list, err := a.metadata.Resource(resource).List(ctx, options)
		if err != nil {
			return found // it affects only a word in the report
		}
		for _, item := range list.Items {
			found[item.Namespace+"/"+item.Name] = item.ResourceVersion
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return found
		}
	}
}

func (a *Applier) applyOne(ctx context.Context, mapping *meta.RESTMapping, d *document, known map[string]string) error {
	var client dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if ns := d.object.GetNamespace(); ns != "" {
		client = a.client.Resource(mapping.Resource).Namespace(ns)
	}
	body := mustJSON(d)
	force := true
	made, err := client.Patch(ctx, d.object.GetName(), "application/apply-patch+yaml", body,
		metav1.PatchOptions{FieldManager: fieldManager, Force: &force, FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return err
	}
	action := Configured
	switch version, existed := known[d.object.GetNamespace()+"/"+d.object.GetName()]; {
	case !existed:
		action = Created
	case version == made.GetResourceVersion():
		action = Unchanged
	}
	a.report(Report{File: d.file, Line: d.line, Object: describe(d.key()), Action: action})
	a.well(sayingOf(d))
	return nil
}

func describe(k key) string {
	if k.namespace == "" {
		return k.Kind + " " + k.name
	}
	return k.Kind + " " + k.namespace + "/" + k.name
}

// sayingOf returns the key of a document in the map of reported failures.
func sayingOf(d *document) string { return fmt.Sprintf("%s %s", d.file, describe(d.key())) }

// failDocument reports an error at the line of the field that it is about.
func (a *Applier) failDocument(d *document, err error) {
	line := d.line
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil && d.text != nil {
		for _, cause := range status.Status().Details.Causes {
			if cause.Field != "" && cause.Field != "<nil>" {
				line = lineOf(d.line, d.text, cause.Field)
				break
			}
		}
	}
	a.fail(sayingOf(d), Report{File: d.file, Line: line, Object: describe(d.key()), Action: Failed, Err: err})
}

// fail reports a failure once: the same failure is not reported again.
func (a *Applier) fail(about string, r Report) {
	a.mu.Lock()
	text := r.String()
	same := a.said[about] == text
	a.said[about] = text
	a.mu.Unlock()
	if !same {
		a.report(r)
	}
}

// well removes a failure, so that it is reported if it occurs again.
func (a *Applier) well(about string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.said, about)
}

func (a *Applier) report(r Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.o.Report(r)
}
