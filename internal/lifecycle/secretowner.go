package lifecycle

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// conditionSecretStays is set if the spec asks to delete the Secret with the Certificate and it
// will stay, as it has data of other clients. cert-manager does not have this condition.
const conditionSecretStays cmapi.CertificateConditionType = "SecretStays"

// reasonForeignSecret: the Secret exists already and was made for another purpose.
const reasonForeignSecret = "ForeignSecret"

// makerManager is the field manager that creates Secrets for objects of other namespaces, and owns
// the annotation about that. It is a separate one as cert-manager would remove the annotation from
// the field manager that both share.
const makerManager = "perennial-controller"

// deletesSecret reports whether the Secret is to be deleted with the Certificate, if nothing else
// is in it.
func deletesSecret(o *Observation) bool {
	policy := o.Certificate.Spec.DeletionPolicy
	return policy == cmapi.DeletionPolicyDelete || policy == "" && o.Settings.OwnSecrets
}

// foreign says, as a text for users, what of a Secret is not the Certificate's: entries of other
// clients, or that another client created it. It is empty if all is the Certificate's. The managed
// fields show that.
func foreign(secret *corev1.Secret) string {
	if secret == nil {
		return ""
	}
	ours, maker := map[string]bool{}, ""
	for _, m := range secret.ManagedFields {
		var set fieldpath.Set
		if m.Subresource != "" || m.FieldsV1 == nil || set.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())) != nil {
			continue
		}
		if m.Manager != secretManager && m.Manager != makerManager {
			if set.Has(fieldpath.MakePathOrDie("type")) {
				maker = m.Manager
			}
			continue
		}
		set.Iterate(func(p fieldpath.Path) {
			if len(p) == 2 && p[0].FieldName != nil && *p[0].FieldName == "data" && p[1].FieldName != nil {
				ours[*p[1].FieldName] = true
			}
		})
	}
	var others []string
	for _, entry := range slices.Sorted(maps.Keys(secret.Data)) {
		if !ours[entry] {
			others = append(others, entry)
		}
	}
	switch {
	case maker != "":
		return fmt.Sprintf("it was made by %q, not for the Certificate", maker)
	case len(others) > 0:
		const most = 5
		text := strings.Join(others[:min(len(others), most)], ", ")
		if n := len(others) - most; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		return "it has entries that are not the Certificate's: " + text
	}
	return ""
}

// ownerOf is the owner that the Secret is to have, by which the API server deletes it with the
// Certificate, or nil.
func ownerOf(o *Observation) *metav1.OwnerReference {
	if !deletesSecret(o) || foreign(o.Secret) != "" {
		return nil
	}
	return metav1.NewControllerRef(o.Certificate, cmapi.SchemeGroupVersion.WithKind("Certificate"))
}

// settleOwner reports a Secret that stays in spite of the spec, and removes the owner reference if
// no other write of the Secret does.
func (d *decider) settleOwner() {
	why := foreign(d.Secret)
	if why == "" || !deletesSecret(d.Observation) {
		cmapi.RemoveCertificateCondition(&d.Status, conditionSecretStays)
		return
	}
	message := fmt.Sprintf("Secret %q is not deleted with the Certificate, in spite of its deletionPolicy: %s. Let "+
		"spec.secretName name a Secret that does not exist, or set deletionPolicy: Retain",
		d.Certificate.Spec.SecretName, why)
	if d.condition(conditionSecretStays) == nil {
		d.event(corev1.EventTypeWarning, string(conditionSecretStays), message)
	}
	d.set(conditionSecretStays, cmmeta.ConditionTrue, "ForeignData", message)
	if d.Apply == nil && metav1.IsControlledBy(d.Secret, d.Certificate) {
		d.Disown = d.Secret
	}
}

// requestedBy names the Gateway or ListenerSet of another namespace that a Certificate is for, or
// is empty.
func requestedBy(crt *cmapi.Certificate) string { return crt.Annotations[signer.RequestedByAnnotation] }

// overwrites reports whether the Certificate is for an object of another namespace, and its Secret
// is not one that was made for an object of that namespace: a ReferenceGrant lets Secrets be
// referred to, not be overwritten.
func (o *Observation) overwrites() bool {
	if requestedBy(o.Certificate) == "" || o.Secret == nil || madeForNamespaceOf(requestedBy(o.Certificate), o.Secret) {
		return false
	}
	if o.Current == nil || len(o.Current.Status.Certificate) == 0 {
		return true
	}
	return !bytes.Equal(bytes.TrimSpace(o.Current.Status.Certificate), bytes.TrimSpace(o.Secret.Data[corev1.TLSCertKey]))
}

// madeForNamespaceOf reports whether the controller made a Secret for an object of the namespace of
// requester. The annotation alone does not show that, as tools copy Secrets with their annotations:
// makerManager must own it. Another client that writes it becomes its owner.
func madeForNamespaceOf(requester string, secret *corev1.Secret) bool {
	by := secret.Annotations[signer.RequestedByAnnotation]
	if by == "" || namespaceOf(by) != namespaceOf(requester) {
		return false
	}
	path := fieldpath.MakePathOrDie("metadata", "annotations", signer.RequestedByAnnotation)
	return slices.ContainsFunc(secret.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		var set fieldpath.Set
		return m.Manager == makerManager && m.Subresource == "" && m.FieldsV1 != nil &&
			set.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())) == nil && set.Has(path)
	})
}

// namespaceOf returns the namespace in a RequestedByAnnotation.
func namespaceOf(requester string) string {
	_, rest, _ := strings.Cut(requester, "/")
	namespace, _, _ := strings.Cut(rest, "/")
	return namespace
}

// leaveForeignSecret leaves a Secret alone that was made for another purpose.
func (d *decider) leaveForeignSecret() {
	message := fmt.Sprintf("Secret %q exists, and was not made for %s, which a ReferenceGrant lets refer to Secrets of "+
		"this namespace, not overwrite them: name another Secret, or delete this one",
		d.Certificate.Spec.SecretName, requestedBy(d.Certificate))
	if was := d.condition(cmapi.CertificateConditionReady); was == nil || was.Reason != reasonForeignSecret {
		d.event(corev1.EventTypeWarning, reasonForeignSecret, message)
	}
	d.set(cmapi.CertificateConditionReady, cmmeta.ConditionFalse, reasonForeignSecret, message)
	d.stop(reasonForeignSecret, message)
}
