// Package inject puts CA certificates where the API server looks for them before it calls somebody:
// into the caBundle of admission webhooks, of CRDs' conversion webhooks and of APIServices that ask
// for it by one of cert-manager's annotations. See docs/inject-ca.md.
//
// Of all objects that could be asked for it the metadata alone is watched, so that memory does not
// grow with what the cluster holds. One that has an annotation is read live, and only its caBundle
// fields are written, by server-side apply under the name that cert-manager's cainjector uses.
//
// While a CA changes, the API server must trust the certificates of both. So a CA that the source
// no longer has stays in the bundle, at most maxFormer of them, each until it expires.
package inject
