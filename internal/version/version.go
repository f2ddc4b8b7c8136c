// Package version says which build of Perennial a program is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version and commit are set when the program is linked (-X). If empty, the build information of Go
// says them.
var version, commit string

// unknown is said of what the build does not record.
const unknown = "unknown"

// Get returns the version.
func Get() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return strings.Trim(info.Main.Version, "()") // without a version: (devel), which is no token of HTTP
	}
	return unknown
}

// Commit returns the commit that the program was built from.
func Commit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return unknown
}

// String returns the version and that of Go.
func String() string { return fmt.Sprintf("%s (%s)", Get(), runtime.Version()) }

// UserAgent returns the User-Agent of requests by a program, or by a part of one.
func UserAgent(program string) string {
	return fmt.Sprintf("%s/%s (%s/%s)", program, Get(), runtime.GOOS, runtime.GOARCH)
}
