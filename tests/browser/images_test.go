//go:build browser

package browser

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var images = flag.String("images", "", "keep what each view looks like in this `FOLDER`")

// What each view looks like, light, dark and narrow. Kept if -images says where.
func TestImages(t *testing.T) {
	w := deployment(t)
	w.start("", "generate", "--rate", "900", "--count", "1000000", "--seed", "3", "--bad-share", "0.004")
	w.open("/audit")
	w.do("run it", chromedp.Click(chromedp.CSS(`form[action$="/audit"] button.main`)), chromedp.WaitVisible(chromedp.CSS(`#audit`)))
	w.until("its verdict is there", func() bool { return strings.Contains(w.text("#audit"), "Clean.") })
	var n int32
	var at int64
	require.NoError(t, w.db.QueryRow(w.ctx, `SELECT source_partition, source_offset FROM enriched_clicks ORDER BY 1, 2 OFFSET 500 LIMIT 1`).Scan(&n, &at))
	for name, path := range map[string]string{"now": "/", "record": fmt.Sprintf("/record?q=%d/%d", n, at), "ledger": "/ledger?over=15m", "letters": "/letters?since=1h", "audit": "/audit"} {
		for _, look := range []struct {
			name, scheme  string
			width, height int64
		}{{"light", "light", 1360, 900}, {"dark", "dark", 1360, 900}, {"narrow", "dark", 390, 844}} {
			w.size(look.width, look.height)
			w.scheme(look.scheme)
			w.open(path)
			if name == "now" { // rates want some looks
				w.until("rates are known", func() bool { return strings.Count(w.text(".stats"), "…") == 0 })
				w.do("watch a little", chromedp.Sleep(12*time.Second))
			}
			eval[int](w, `document.activeElement.blur(); 0`)
			shot, err := chromedp.Run(w.ctx, chromedp.CaptureScreenshot())
			require.NoError(t, err)
			small := reduce(t, shot)
			if *images != "" {
				require.NoError(t, os.WriteFile(filepath.Join(*images, "console-"+name+"-"+look.name+".png"), small, 0o644))
			}
			require.Less(t, len(small), 200<<10, name)
		}
	}
	w.clean()
}

// reduce is the same picture in 256 of its colours: a page has few.
func reduce(t *testing.T, b []byte) []byte {
	t.Helper()
	in, err := png.Decode(bytes.NewReader(b))
	require.NoError(t, err)
	count := map[color.RGBA]int{}
	r := in.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			count[color.RGBAModel.Convert(in.At(x, y)).(color.RGBA)]++
		}
	}
	all := make([]color.RGBA, 0, len(count))
	for c := range count {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b color.RGBA) int { return count[b] - count[a] })
	var p color.Palette
	for far := 48; far >= 0 && len(p) < 256; far -= 8 { // those that are unlike all others first, or small things would lose their colour
		for _, c := range all {
			if len(p) < 256 && !slices.ContainsFunc(p, func(q color.Color) bool { return distance(c, q.(color.RGBA)) <= far }) {
				p = append(p, c)
			}
		}
	}
	out := image.NewPaletted(r, p)
	near := map[color.RGBA]uint8{}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c := color.RGBAModel.Convert(in.At(x, y)).(color.RGBA)
			i, ok := near[c]
			if !ok {
				i = uint8(p.Index(c))
				near[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var small bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, out))
	return small.Bytes()
}

func distance(a, b color.RGBA) int {
	abs := func(x, y uint8) int { return max(int(x), int(y)) - min(int(x), int(y)) }
	return abs(a.R, b.R) + abs(a.G, b.G) + abs(a.B, b.B)
}
