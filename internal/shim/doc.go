// Package shim makes Certificates for annotated Ingresses, Gateways and ListenerSets. A pure
// function computes the whole Certificates that an object asks for. A reconciler creates, updates
// and deletes Certificates accordingly, so that each change of the object, also a removal, reaches
// the Certificate.
package shim
