package jvm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Program is one of the fetched programs.
type Program string

// The programs.
const (
	Kafka    Program = "kafka" // the broker, and its tools
	Registry Program = "registry"
)

// Archive has the classes that a program loads kept as the JVM wants them in memory (JEP 350: a dynamic archive of application class data),
// so that later starts of the program need not parse and verify them again: that is half of what a start costs. It is made once, beside the
// programs, for each java: run runs the program until it has loaded what it needs, with the argument it is given among the JVM's, and ends it in an
// orderly way, which is when the JVM writes. Where there is an archive, nothing is run.
//
// An error leaves everything as usable as it was. That a JVM ended well and wrote none is remembered: the next call does not try again.
func (p *Programs) Archive(ctx context.Context, of Program, run func(argument string) error) error {
	file := p.archive(of)
	if settled(file) {
		return nil
	}
	lock, err := lockFile(ctx, file+".lock")
	if err != nil {
		return err
	}
	defer lock.Close() // the lock goes with it
	if settled(file) {
		return nil // somebody else made it while we waited
	}
	draft := file + ".draft"
	defer os.Remove(draft) //nolint:errcheck // renamed, as a rule
	if err := run("-XX:ArchiveClassesAtExit=" + draft); err != nil {
		return fmt.Errorf("archive the classes of %s: %w", of, err)
	}
	if err := os.Rename(draft, file); err != nil {
		err = fmt.Errorf("%s wrote no archive of the classes of %s (remove %s to have it tried again): %w", p.java, of, refused(file), err)
		_ = os.WriteFile(refused(file), []byte(err.Error()+"\n"), 0o600) // else it is tried again
		return err
	}
	return nil
}

// refused is the file that says why there is no archive.
func refused(file string) string { return file + ".failed" }

func settled(file string) bool {
	for _, f := range []string{file, refused(file)} {
		if _, err := os.Stat(f); err == nil {
			return true
		}
	}
	return false
}

// archive is a program's, for this java, these flags and these jars: a JVM takes no other, and says so in every log.
func (p *Programs) archive(of Program) string {
	key := sha256.Sum256([]byte(p.java + "\n" + p.version + "\n" + strings.Join(flags, "\n")))
	return filepath.Join(p.dir, fmt.Sprintf("%s-%x.jsa", of, key[:4]))
}

func (p *Programs) withArchive(of Program) []string {
	file := p.archive(of)
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	return []string{"-XX:SharedArchiveFile=" + file}
}
