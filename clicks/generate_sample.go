package clicks

import _ "embed" // the sample

// SampleAccessLog is a small log that Debian's nginx wrote, with X-Forwarded-For in its last field; sample/make.sh says how it was made.
//
//go:embed sample/access.log
var SampleAccessLog []byte
