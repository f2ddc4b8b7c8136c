// Package inject sets the caBundle by which the API server verifies the servers that it calls:
// admission webhooks, conversion webhooks of CRDs, and APIServices that have one of cert-manager's
// annotations. See docs/inject-ca.md.
//
// The controller watches only the metadata of these objects, so that memory does not grow with what
// the cluster holds. It reads an object that has an annotation from the API server, and writes only
// the caBundle fields, by server-side apply with the field manager of cert-manager's cainjector.
//
// While a CA changes, the API server must trust the certificates of both CAs. So a CA that the
// source no longer has stays in the bundle until it expires, at most maxFormer of them.
package inject
