// Package shim gives annotated objects that want to be served by TLS their Certificates. What such
// an object asks for is turned into whole Certificates by one pure function; one reconciler sees to
// it that they are so. So whatever is changed or taken away on the object arrives at the
// Certificate.
package shim
