// Package jvm owns the Java side of the real stack: finding java and mvn, fetching the programs that pom.xml names, the archives of their
// classes that have them up sooner, and the command that runs one of them.
//
// It promises that the programs are fetched once for each version of pom.xml, and archives made once for each java, whole or not at all, also when
// several processes want them at the same time, that a program without an archive runs all the same, and that what is missing is named with the command that installs it. It never installs anything, and never
// talks to the network itself: Maven does, with the user's own settings.
package jvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldestJava is the oldest major version that Apache Kafka 4 and the registry run on.
const oldestJava = 17

// Programs is where the fetched programs are, and the java that runs them.
type Programs struct {
	java    string
	version string // what that java says it is, to the letter
	dir     string
}

// Find finds java, and the programs; the first time on a machine it fetches them with Maven.
func Find(ctx context.Context, say func(string)) (*Programs, error) {
	java, version, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := fetched(ctx, say)
	if err != nil {
		return nil, err
	}
	return &Programs{java: java, version: version, dir: dir}, nil
}

var version = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// findJava is the java of JAVA_HOME, else of PATH, and what it says it is.
func findJava(ctx context.Context) (java, says string, err error) {
	const install = "install it with `apt-get install openjdk-17-jre-headless` (Debian, Ubuntu), `dnf install java-17-openjdk-headless` (Fedora, RHEL) or " +
		"`brew install openjdk@17` (macOS), or set JAVA_HOME"
	var seen []string
	names := []string{"java"}
	if h := os.Getenv("JAVA_HOME"); h != "" {
		names = []string{filepath.Join(h, "bin", "java"), "java"}
	}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
		m := version.FindSubmatch(out)
		if err != nil || m == nil {
			seen = append(seen, path+", which does not run")
			continue
		}
		major, _ := strconv.Atoi(string(m[1])) // digits
		if major >= oldestJava {
			return path, string(out), nil
		}
		seen = append(seen, fmt.Sprintf("%s, which is %d", path, major))
	}
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if len(seen) > 0 {
		return "", "", fmt.Errorf("the real stack needs Java %d or newer (found: %s): %s", oldestJava, strings.Join(seen, "; "), install)
	}
	return "", "", fmt.Errorf("the real stack needs Java %d or newer, and there is none: %s", oldestJava, install)
}

// flags suit a JVM that shares a small machine with several others: it is up sooner, and takes less of both.
var flags = []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true", "-Dfile.encoding=UTF-8"}

// File is a file beside the programs, to keep what was made with them.
func (p *Programs) File(name string) string { return filepath.Join(p.dir, name) }

// Kafka is a command with Apache Kafka's jars: a main class and its arguments, with further arguments for the JVM.
func (p *Programs) Kafka(jvm []string, main string, args ...string) *exec.Cmd {
	return p.command(Kafka, jvm, append([]string{"-cp", filepath.Join(p.dir, "kafka", "*"), main}, args...))
}

// Registry is a command that runs the registry.
func (p *Programs) Registry(jvm []string) (*exec.Cmd, error) {
	jars, err := filepath.Glob(filepath.Join(p.dir, "registry", "*-runner.jar"))
	if err != nil || len(jars) != 1 {
		return nil, errors.Join(err, fmt.Errorf("%s: want one runner, found %v", p.dir, jars))
	}
	return p.command(Registry, jvm, []string{"-jar", jars[0]}), nil
}

func (p *Programs) command(of Program, jvm, args []string) *exec.Cmd {
	all := slices.Concat(flags, p.withArchive(of), jvm, args)
	cmd := exec.Command(p.java, all...)
	cmd.Env = environ()
	return cmd
}

// environ is ours without what would change a JVM, a broker or the registry behind our back.
func environ() []string {
	var out []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "KAFKA_") || strings.HasPrefix(name, "QUARKUS_") || strings.HasPrefix(name, "APICURIO_") || name == "CLASSPATH" ||
			name == "JAVA_TOOL_OPTIONS" || name == "_JAVA_OPTIONS" || name == "JDK_JAVA_OPTIONS" || strings.HasPrefix(name, "EXACTLY_") {
			continue
		}
		out = append(out, kv)
	}
	return out
}
