// Package order brings ACME Orders to their certificates. What the server knows is read before
// anything is asked of it, so that a pass that was cut off anywhere is simply repeated; what was
// asked is in the objects, so that it is asked again in the same words.
//
// An Order creates a Challenge for each pending authorization; package challenge brings those to
// their end. Nothing waits in a worker: each pass makes a few exchanges, each with a deadline, and
// schedules the next one.
package order
