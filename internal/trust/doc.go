// Package trust carries out TrustBundles: it collects CA certificates and puts them into ConfigMaps
// and Secrets of the namespaces that are selected. See docs/trust-bundles.md.
//
// The status of a TrustBundle is its memory: it holds every certificate that may vanish from its
// source, and so one that did vanish can stay in the bundle until no certificate that it signed is
// in use. What becomes of each certificate is decided by a pure function, resolve, of the sources,
// the status and the time.
//
// A source that cannot be used does not stop the others: with what is retained, nobody who is
// trusted now ceases to be because of a mistake elsewhere. A source that cannot be read for the
// moment stops the pass, for nothing is known then.
package trust
