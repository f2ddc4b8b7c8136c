package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

const (
	// inventoryNamespace and inventoryName identify the object with the list of applied objects.
	inventoryNamespace = "perennial-system"
	inventoryName      = "perenniald-manifests"
	inventoryEntry     = "objects"
)

// entry is an applied object and its file.
type entry struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	File      string `json:"file"`
}

func (e entry) key() key {
	return key{schema.GroupKind{Group: e.Group, Kind: e.Kind}, e.Namespace, e.Name}
}

// inventory is the list of all applied objects, which shows the objects that are no longer in any
// file. It is written before an object is applied for the first time, so that none is missed.
type inventory struct {
	client  kubernetes.Interface
	loaded  bool
	entries map[key]entry
}

func (i *inventory) load(ctx context.Context) error {
	if i.loaded {
		return nil
	}
	i.entries = map[key]entry{}
	m, err := i.client.CoreV1().ConfigMaps(inventoryNamespace).Get(ctx, inventoryName, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read the list of applied objects: %w", err)
	}
	if err == nil {
		for line := range strings.Lines(m.Data[inventoryEntry]) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return fmt.Errorf(
					"ConfigMap %s/%s is damaged: %w (delete it to start a new list; objects of removed files are then left)",
					inventoryNamespace,
					inventoryName,
					err,
				)
			}
			i.entries[e.key()] = e
		}
	}
	i.loaded = true
	return nil
}

// with returns the inventory with the wanted objects added.
func (i *inventory) with(wanted map[key]*document) map[key]entry {
	entries := map[key]entry{}
	for k, e := range i.entries {
		entries[k] = e
	}
	for k, d := range wanted {
		gvk := d.object.GroupVersionKind()
		entries[k] = entry{gvk.Group, gvk.Version, gvk.Kind, k.namespace, k.name, d.file}
	}
	return entries
}

// save replaces the list, if it has changed.
func (i *inventory) save(ctx context.Context, entries map[key]entry) error {
	old, text := i.text(i.entries), i.text(entries)
	if old == text {
		return nil
	}
	maps := i.client.CoreV1().ConfigMaps(inventoryNamespace)
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: inventoryName, Namespace: inventoryNamespace},
		Data:       map[string]string{inventoryEntry: text},
	}
	_, err := maps.Update(ctx, m, metav1.UpdateOptions{FieldManager: fieldManager})
	if apierrors.IsNotFound(err) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: inventoryNamespace}}
		if _, err := i.client.CoreV1().
			Namespaces().
			Create(ctx, ns, metav1.CreateOptions{FieldManager: fieldManager}); err != nil &&
			!apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create namespace %s for the list of applied objects: %w", inventoryNamespace, err)
		}
		_, err = maps.Create(ctx, m, metav1.CreateOptions{FieldManager: fieldManager})
	}
	if err != nil {
		return fmt.Errorf("write the list of applied objects: %w", err)
	}
	i.entries = entries
	return nil
}

func (i *inventory) text(entries map[key]entry) string {
	lines := make([]string, 0, len(entries))
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			panic(err) // strings always encode
		}
		lines = append(lines, string(line)+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// prune deletes the objects of the inventory that are no longer wanted or, without the option, only
// removes them from the inventory. Objects of a file that cannot be read at present stay.
func (a *Applier) prune(ctx context.Context, wanted map[key]*document, broken map[string]bool) error {
	remaining := map[key]entry{}
	var gone []entry
	for k, e := range a.inventory.entries {
		if _, ok := wanted[k]; ok || broken[e.File] {
			remaining[k] = e
		} else {
			gone = append(gone, e)
		}
	}
	// In the reverse of the order of applying.
	slices.SortFunc(gone, func(x, y entry) int {
		if d := rankOf(y) - rankOf(x); d != 0 {
			return d
		}
		return strings.Compare(x.File+x.Kind+x.Namespace+x.Name, y.File+y.Kind+y.Namespace+y.Name)
	})
	var errs []error
	for _, e := range gone {
		action, note := Left, "no file has it any more, and only --prune deletes it"
		if a.o.Prune {
			deleted, err := a.delete(ctx, e)
			if err != nil {
				errs = append(errs, fmt.Errorf("prune %s: %w", describe(e.key()), err))
				remaining[e.key()] = e
				continue
			}
			if action, note = Pruned, ""; !deleted {
				action, note = Left, "no file has it any more, but another client has created it again"
			}
		}
		delete(a.applied, e.key())
		a.report(Report{File: e.File, Object: describe(e.key()), Action: action, Note: note})
	}
	if err := a.inventory.save(ctx, remaining); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func rankOf(e entry) int {
	u := new(unstructured.Unstructured)
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: e.Group, Version: e.Version, Kind: e.Kind})
	return rank(&document{object: u})
}

// delete deletes the object, unless another client has since created a new one of that name.
func (a *Applier) delete(ctx context.Context, e entry) (bool, error) {
	mapping, err := a.mapper.RESTMapping(schema.GroupKind{Group: e.Group, Kind: e.Kind}, e.Version)
	if meta.IsNoMatchError(err) {
		return true, nil // deleted together with its kind
	} else if err != nil {
		return false, err
	}
	var client dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if e.Namespace != "" {
		client = a.client.Resource(mapping.Resource).Namespace(e.Namespace)
	}
	object, err := client.Get(ctx, e.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	ours := slices.ContainsFunc(object.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == fieldManager && m.Operation == metav1.ManagedFieldsOperationApply
	})
	if !ours {
		return false, nil
	}
	uid := object.GetUID()
	background := metav1.DeletePropagationBackground
	err = client.Delete(
		ctx,
		e.Name,
		metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid}},
	)
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return err == nil, err
}

// defines returns the kind that a CustomResourceDefinition defines.
func defines(u *unstructured.Unstructured) (schema.GroupKind, bool) {
	if u.GroupVersionKind().
		GroupKind() !=
		(schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}) {
		return schema.GroupKind{}, false
	}
	group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
	return schema.GroupKind{Group: group, Kind: kind}, true
}
