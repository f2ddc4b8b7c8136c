// Package order brings ACME Orders to their certificates, and Challenges to their end. What the server knows is read before anything is
// asked of it, so that a pass that was cut off anywhere is simply begun anew; what was asked is in the objects, so that it
// is asked again in the same words.
//
// An Order makes a Challenge for each authorization that is still to be given. A Challenge presents its proof, by a solver of package
// solver, looks until the proof can be seen from outside, tells the server to look, and takes the proof away when it is deleted. Nothing
// waits in a worker: each pass makes a few exchanges, each with a deadline, and says when it wants to come back.
package order
