package inject

import (
	"encoding/base64"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/perennial-pki/perennial/internal/fault"
)

// Target is a kind of objects that hold CA bundles.
type Target struct {
	// Resource is the plural name, as in flags: mutatingwebhookconfigurations.
	Resource string
	Kind     schema.GroupVersionKind
	// bundles finds the bundles of an object. The error says why it has none.
	bundles func(object map[string]any) ([]bundle, error)
	// apply returns the fields that server-side apply needs to set the bundles of an object.
	apply func([]bundle) map[string]any
}

// bundle is one caBundle field.
type bundle struct {
	// webhook is the name of the list entry that has the field, if the object has a list of webhooks.
	webhook string
	// pem is the content. It need not be certificates, because the API server accepts other data, too.
	pem []byte
}

// Targets returns all kinds of targets.
func Targets() []Target {
	admission := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	return []Target{
		{"mutatingwebhookconfigurations", admission.WithKind("MutatingWebhookConfiguration"), webhookBundles, applyWebhooks},
		{
			"validatingwebhookconfigurations",
			admission.WithKind("ValidatingWebhookConfiguration"),
			webhookBundles,
			applyWebhooks,
		},
		{
			"customresourcedefinitions",
			schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
			conversionBundle, applyAt("spec", "conversion", "webhook", "clientConfig"),
		},
		{
			"apiservices",
			schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"},
			apiServiceBundle, applyAt("spec"),
		},
	}
}

// metadata returns an empty PartialObjectMetadata for a target, to watch or to get.
func (t *Target) metadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(t.Kind)
	return o
}

func (t *Target) metadataList() *metav1.PartialObjectMetadataList {
	o := &metav1.PartialObjectMetadataList{}
	o.SetGroupVersionKind(t.Kind.GroupVersion().WithKind(t.Kind.Kind + "List"))
	return o
}

func webhookBundles(object map[string]any) ([]bundle, error) {
	webhooks, _, err := unstructured.NestedSlice(object, "webhooks")
	if err != nil {
		return nil, err
	}
	if len(webhooks) == 0 {
		return nil, nothingToInject("webhooks is empty")
	}
	var bundles []bundle
	for i, w := range webhooks {
		webhook, ok := w.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("webhooks[%d] is not an object", i)
		}
		name, _, err := unstructured.NestedString(webhook, "name")
		if err != nil {
			return nil, err
		}
		b, err := bundleAt(webhook, "clientConfig", "caBundle")
		if err != nil {
			return nil, err
		}
		b.webhook = name
		bundles = append(bundles, b)
	}
	return bundles, nil
}

func applyWebhooks(bundles []bundle) map[string]any {
	webhooks := make([]any, len(bundles))
	for i, b := range bundles {
		webhooks[i] = map[string]any{
			"name":         b.webhook, // the key of the list
			"clientConfig": map[string]any{"caBundle": base64.StdEncoding.EncodeToString(b.pem)},
		}
	}
	return map[string]any{"webhooks": webhooks}
}

func conversionBundle(object map[string]any) ([]bundle, error) {
	strategy, _, err := unstructured.NestedString(object, "spec", "conversion", "strategy")
	if err != nil {
		return nil, err
	}
	if strategy != "Webhook" {
		return nil, nothingToInject("spec.conversion.strategy is not Webhook")
	}
	return one(bundleAt(object, "spec", "conversion", "webhook", "clientConfig", "caBundle"))
}

func apiServiceBundle(object map[string]any) ([]bundle, error) {
	service, _, err := unstructured.NestedMap(object, "spec", "service")
	if err != nil {
		return nil, err
	}
	if service == nil {
		return nil, nothingToInject("spec.service is not set, so the API server itself serves it")
	}
	insecure, _, err := unstructured.NestedBool(object, "spec", "insecureSkipTLSVerify")
	if err != nil {
		return nil, err
	}
	if insecure {
		return nil, nothingToInject("spec.insecureSkipTLSVerify is true, with which there can be no CA: remove it")
	}
	return one(bundleAt(object, "spec", "caBundle"))
}

func applyAt(path ...string) func([]bundle) map[string]any {
	return func(bundles []bundle) map[string]any {
		out := map[string]any{"caBundle": base64.StdEncoding.EncodeToString(bundles[0].pem)}
		for i := len(path) - 1; i >= 0; i-- {
			out = map[string]any{path[i]: out}
		}
		return out
	}
}

func bundleAt(object map[string]any, path ...string) (bundle, error) {
	encoded, _, err := unstructured.NestedString(object, path...)
	if err != nil {
		return bundle{}, err
	}
	pem, err := base64.StdEncoding.DecodeString(encoded)
	return bundle{pem: pem}, err
}

func one(b bundle, err error) ([]bundle, error) {
	if err != nil {
		return nil, err
	}
	return []bundle{b}, nil
}

func nothingToInject(why string) error {
	return fault.Misconfiguredf("NothingToInject", "no CA certificates are injected: %s", why)
}
