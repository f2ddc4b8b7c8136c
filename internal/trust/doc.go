// Package trust reconciles TrustBundles: it collects CA certificates and writes them to ConfigMaps
// and Secrets of the selected namespaces. See docs/trust-bundles.md.
//
// The status of a TrustBundle holds every certificate that may vanish from its source. So a CA that
// did vanish can stay in the bundle until no certificate that it signed is in use. A pure function,
// resolve, decides about each certificate from the sources, the status and the time.
//
// A source that is wrong does not stop the others: its certificates are retained, so that a mistake
// never removes trust. A source that cannot be read for the moment stops the pass, because its
// content is not known.
package trust
