// Package version knows the version of the program.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Linked is the version, set when the program is linked. Without, it is that of the main module.
var Linked string

// Get returns the version.
func Get() string {
	if Linked != "" {
		return Linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// String returns the version and that of Go.
func String() string { return fmt.Sprintf("%s (%s)", Get(), runtime.Version()) }
