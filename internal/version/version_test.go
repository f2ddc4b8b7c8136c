package version

import (
	"runtime"
	"testing"
)

func TestWhatTheLinkerSetsIsSaid(t *testing.T) {
	version, commit = "v1.2.3", "0123abc"
	defer func() { version, commit = "", "" }()
	if Get() != "v1.2.3" || Commit() != "0123abc" {
		t.Errorf("version %s, commit %s", Get(), Commit())
	}
	if got, want := String(), "v1.2.3 ("+runtime.Version()+")"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := UserAgent("perennial"), "perennial/v1.2.3 ("+runtime.GOOS+"/"+runtime.GOARCH+")"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestABuildWithoutVersionSaysSoInATokenOfHTTP(t *testing.T) {
	if got := Get(); got != "devel" && got != unknown { // go test records none
		t.Errorf("version %q", got)
	}
}
