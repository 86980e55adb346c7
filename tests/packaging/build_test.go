package packaging

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/stretchr/testify/require"
)

// testVersion goes in as the build argument VERSION, and must come out of the program.
const testVersion = "v0.0.0-packaging"

// image is what the Dockerfile makes: a tree, and how to start what is in it. The base image's own files are not in the tree.
type image struct {
	root                        string
	env, labels                 map[string]string
	entrypoint, command, health []string
	user                        string
	ports                       []string
}

var build struct {
	once  sync.Once
	image *image
}

// built runs the Dockerfile's steps, once for all tests.
func built(t *testing.T) *image {
	t.Helper()
	build.once.Do(func() {
		b := &builder{t: t, context: buildContext(t, filepath.Join(scratch, "context")), stages: map[string]string{}}
		var last *image
		for i, s := range stages(t) {
			last = b.stage(filepath.Join(scratch, "stage", string(rune('0'+i))), s)
		}
		build.image = last
	})
	require.NotNil(t, build.image, "the Dockerfile's steps failed in an earlier test")
	return build.image
}

// buildContext is the tree less what .dockerignore keeps out.
func buildContext(t *testing.T, to string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(root, ".dockerignore"))
	require.NoError(t, err)
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	require.NoError(t, err)
	m, err := patternmatcher.New(patterns)
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() && (name == ".git" || name == "bin") { // ignored, and large
			return fs.SkipDir
		}
		ignored, err := m.MatchesOrParentMatches(name)
		if err != nil || ignored || !d.Type().IsRegular() {
			return err
		}
		return copyFile(p, filepath.Join(to, name))
	}))
	for _, secret := range []string{".env", "dev/exactly.env", "server.key", "configs/exactly.yaml"} {
		ignored, err := m.MatchesOrParentMatches(secret)
		require.NoError(t, err)
		require.True(t, ignored, ".dockerignore lets %s into the image's build", secret)
	}
	return to
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return copyFile(p, filepath.Join(to, name))
	})
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, info.Mode().Perm())
}

// builder does what a Dockerfile's instructions say, each stage in a folder of its own. What it can't do fails the test: a step that is
// left out is not checked.
type builder struct {
	t       *testing.T
	context string
	stages  map[string]string // name to folder

	dir, workdir string
	args         map[string]string
	image        *image
}

func (b *builder) stage(dir string, s instructions.Stage) *image {
	b.dir, b.workdir, b.args = dir, "/", map[string]string{}
	b.image = &image{root: dir, env: map[string]string{}, labels: map[string]string{}}
	b.stages[s.Name] = dir
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	for _, c := range s.Commands {
		b.step(c)
	}
	return b.image
}

func (b *builder) step(c instructions.Command) {
	switch c := c.(type) {
	case *instructions.WorkdirCommand:
		b.workdir = path.Join(b.workdir, c.Path)
		require.NoError(b.t, os.MkdirAll(b.in(""), 0o755))
	case *instructions.CopyCommand:
		b.copy(c)
	case *instructions.RunCommand:
		b.run(c)
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			if a.Value != nil {
				b.args[a.Key] = *a.Value
			}
			if a.Key == "VERSION" {
				b.args[a.Key] = testVersion
			}
		}
	case *instructions.EnvCommand:
		for _, e := range c.Env {
			b.image.env[e.Key] = b.expand(e.Value)
		}
	case *instructions.LabelCommand:
		for _, l := range c.Labels {
			b.image.labels[b.expand(l.Key)] = b.expand(l.Value)
		}
	case *instructions.ExposeCommand:
		b.image.ports = append(b.image.ports, c.Ports...)
	case *instructions.UserCommand:
		b.image.user = c.User
	case *instructions.HealthCheckCommand:
		require.Equal(b.t, "CMD", c.Health.Test[0], "HEALTHCHECK needs the exec form: the base has no shell")
		b.image.health = c.Health.Test[1:]
	case *instructions.EntrypointCommand:
		require.False(b.t, c.PrependShell, "ENTRYPOINT needs the exec form")
		b.image.entrypoint = c.CmdLine
	case *instructions.CmdCommand:
		require.False(b.t, c.PrependShell, "CMD needs the exec form")
		b.image.command = c.CmdLine
	default:
		require.Failf(b.t, "this test cannot do it", "%s", c.Name())
	}
}

// in is a path of the stage, on this machine.
func (b *builder) in(p string) string {
	if !path.IsAbs(p) {
		p = path.Join(b.workdir, p)
	}
	return filepath.Join(b.dir, p)
}

func (b *builder) expand(s string) string {
	var env []string
	for _, m := range []map[string]string{b.args, b.image.env} { // the last wins
		for k, v := range m {
			env = append(env, k+"="+v)
		}
	}
	out, _, err := shell.NewLex('\\').ProcessWord(s, shell.EnvsFromSlice(env))
	require.NoError(b.t, err)
	return out
}

func (b *builder) copy(c *instructions.CopyCommand) {
	from := b.context
	if c.From != "" {
		require.Contains(b.t, b.stages, c.From)
		from = b.stages[c.From]
	}
	for _, src := range c.SourcePaths {
		whole := filepath.Join(from, src)
		info, err := os.Stat(whole)
		require.NoError(b.t, err, "COPY %s: is it let in by .dockerignore?", src)
		if !info.IsDir() {
			to := b.in(c.DestPath)
			if strings.HasSuffix(c.DestPath, "/") {
				to = filepath.Join(to, filepath.Base(src))
			}
			require.NoError(b.t, copyFile(whole, to))
			continue
		}
		require.NoError(b.t, copyTree(whole, b.in(c.DestPath)))
	}
}

var absolute = regexp.MustCompile(`(^|[\s="'])/\w`)

// run does a RUN in the stage's folder, with this machine's Go and its caches in place of the mounts.
func (b *builder) run(c *instructions.RunCommand) {
	require.True(b.t, c.PrependShell, "RUN in the exec form: not done here")
	line := strings.Join(c.CmdLine, " ")
	require.NotRegexp(b.t, absolute, line, "a RUN that names an absolute path: here it would be this machine's")
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir = b.in("")
	cmd.Env = os.Environ()
	for _, m := range []map[string]string{b.args, b.image.env} {
		for k, v := range m {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	out, err := cmd.CombinedOutput()
	require.NoError(b.t, err, "RUN %s\n%s\nIf a file to be embedded is not found: .dockerignore lets in what it names, nothing else.", line, out)
}
