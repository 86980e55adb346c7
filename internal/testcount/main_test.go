package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A run as go test -json tells it: headings are not tests, each test counts once, what failed is shown.
const told = `{"Action":"start","Package":"m/exactly/a"}
{"Action":"run","Package":"m/exactly/a","Test":"TestOne"}
{"Action":"output","Package":"m/exactly/a","Test":"TestOne","Output":"quiet\n"}
{"Action":"pass","Package":"m/exactly/a","Test":"TestOne"}
{"Action":"run","Package":"m/exactly/a","Test":"TestTwo"}
{"Action":"run","Package":"m/exactly/a","Test":"TestTwo/x"}
{"Action":"run","Package":"m/exactly/a","Test":"TestTwo/x/y"}
{"Action":"pass","Package":"m/exactly/a","Test":"TestTwo/x/y"}
{"Action":"pass","Package":"m/exactly/a","Test":"TestTwo/x"}
{"Action":"run","Package":"m/exactly/a","Test":"TestTwo/z"}
{"Action":"output","Package":"m/exactly/a","Test":"TestTwo/z","Output":"loud\n"}
{"Action":"fail","Package":"m/exactly/a","Test":"TestTwo/z"}
{"Action":"fail","Package":"m/exactly/a","Test":"TestTwo"}
{"Action":"output","Package":"m/exactly/a","Output":"FAIL\tm/exactly/a\t1.0s\n"}
{"Action":"fail","Package":"m/exactly/a","Elapsed":1}
{"Action":"output","Package":"m/exactly/b","Output":"these tests run on: apache kafka, 3 brokers\n"}
{"Action":"run","Package":"m/exactly/b","Test":"TestThree"}
{"Action":"pass","Package":"m/exactly/b","Test":"TestThree"}
{"Action":"run","Package":"m/exactly/b","Test":"TestHeading"}
{"Action":"output","Package":"m/exactly/b","Test":"TestHeading","Output":"    x_test.go:1: these tests run on: apache kafka, 1 broker\n"}
{"Action":"run","Package":"m/exactly/b","Test":"TestHeading/x"}
{"Action":"pass","Package":"m/exactly/b","Test":"TestHeading/x"}
{"Action":"pass","Package":"m/exactly/b","Test":"TestHeading"}
{"Action":"output","Package":"m/exactly/b","Output":"ok  \tm/exactly/b\t0.1s\n"}
{"Action":"pass","Package":"m/exactly/b","Elapsed":0.1}
{"Action":"build-output","ImportPath":"m/exactly/c","Output":"undefined: x\n"}
{"Action":"build-fail","ImportPath":"m/exactly/c"}
{"Action":"output","Package":"m/exactly/c","Output":"FAIL\tm/exactly/c [build failed]\n"}
{"Action":"fail","Package":"m/exactly/c","Elapsed":0}
{"Action":"output","Package":"m/exactly/d","Output":"?   \tm/exactly/d\t[no test files]\n"}
{"Action":"skip","Package":"m/exactly/d","Elapsed":0}
`

func TestCounts(t *testing.T) {
	var out strings.Builder
	c := newCounter(&out, map[string]string{"m/exactly/a": embedded})
	require.NoError(t, c.read(strings.NewReader(told)))
	c.close()
	require.Equal(t, count{4, 2, 0}, c.total)
	require.Equal(t, count{0, 1, 0}, *c.byStack[none])
	require.Equal(t, count{1, 0, 0}, *c.byStack["apache kafka, 3 brokers"])
	require.Equal(t, count{1, 0, 0}, *c.byStack["apache kafka, 1 broker"], "what the heading says goes for what is below it")
	require.Equal(t, count{2, 1, 0}, *c.byStack[embedded])
	require.Contains(t, out.String(), "loud\n")
	require.Contains(t, out.String(), "undefined: x\n")
	require.NotContains(t, out.String(), "quiet")
	require.True(t, strings.HasSuffix(out.String(), "FAIL\tm/exactly/a\t1.0s\nok  \tm/exactly/b\t0.1s\nFAIL\tm/exactly/c [build failed]\ntests: 4 passed, 2 failed, 0 skipped\n"), out.String())
}
