package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// roomy is the size of a disk that is not full. Memory is taken only for what is on it.
const roomy = "8g"

// margin is what a full disk has left: less than any write that matters takes.
const margin = 64 << 10

// disk is a file system in memory that can be made full at any time, by its size.
type disk struct{ dir string }

// mountDisk needs root.
func mountDisk(dir string, owner int) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+roomy); err != nil {
		return nil, fmt.Errorf("mount a disk to be filled on %s (that needs root): %w", dir, err)
	}
	d := &disk{dir}
	if owner >= 0 {
		if err := os.Chown(dir, owner, -1); err != nil {
			return nil, errors.Join(err, d.unmount())
		}
	}
	return d, nil
}

func (d *disk) resize(size string) error {
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT, "mode=700,size="+size); err != nil {
		return fmt.Errorf("resize %s to %s: %w", d.dir, size, err)
	}
	return nil
}

// fill leaves next to nothing free.
func (d *disk) fill() error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return err
	}
	used := (st.Blocks - st.Bfree) * uint64(st.Bsize)
	return d.resize(fmt.Sprint(used + margin))
}

func (d *disk) empty() error   { return d.resize(roomy) }
func (d *disk) unmount() error { return syscall.Unmount(d.dir, syscall.MNT_DETACH) }

// moveTables puts the tables that grow on a disk of their own, where they can meet its end without the server's log doing so.
func (r *Rig) moveTables(ctx context.Context) error {
	info, err := os.Stat(filepath.Join(r.opt.Dir, "stack", "postgres"))
	if err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(r.opt.Dir, "stack"), 0o711); err != nil {
		return err
	}
	dir := filepath.Join(r.opt.Dir, "pgdisk")
	d, err := mountDisk(dir, int(info.Sys().(*syscall.Stat_t).Uid))
	if err != nil {
		return err
	}
	r.disks = append(r.disks, d)
	conn, err := pgx.Connect(ctx, r.stack.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing left to lose
	if _, err := conn.Exec(ctx, `CREATE TABLESPACE small LOCATION '`+dir+`'`); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('enriched_clicks'::regclass, 'outbox'::regclass)`)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, t := range tables {
		if _, err := conn.Exec(ctx, `ALTER TABLE `+t+` SET TABLESPACE small`); err != nil {
			return fmt.Errorf("move table %s: %w", t, err)
		}
	}
	return nil
}

// pgDisk has the disk of the tables full for a while. That it struck is in the server's log.
func (r *Rig) pgDisk(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	r.pg.Lock()
	defer r.pg.Unlock()
	if len(r.disks) == 0 {
		return errors.New("there is no disk to fill: that needs root")
	}
	d := r.disks[len(r.disks)-1]
	log := filepath.Join(r.opt.Dir, "stack", "postgres.log")
	was := count(log, "No space left on device")
	at := time.Now()
	if err := d.fill(); err != nil {
		return err
	}
	full := func() error {
		if err := c.Until(ctx, "Postgres met the disk's end", func() bool { return count(log, "No space left on device") > was }); err != nil {
			return err
		}
		f.Standstill = true
		c.Struck(f, at, "", "Postgres' disk full")
		return wait.For(ctx, f.Lasts())
	}
	err := full()
	if err := errors.Join(err, d.empty()); err != nil {
		return err
	}
	f.Confirmed = fmt.Sprintf("Postgres refused %d times: No space left on device", count(log, "No space left on device")-was)
	return nil
}

// brokerDisk has a broker's disk full until the broker ends, as it does when its last log directory fails; it is revived when there is room.
func (r *Rig) brokerDisk(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	r.kafka.Lock()
	defer r.kafka.Unlock()
	cl := r.stack.Cluster()
	if len(r.disks) == 0 || cl == nil || cl.Size() < 3 {
		return errors.New("there is no disk to fill: that needs root, and three brokers")
	}
	if err := r.whole(ctx, cl); err != nil {
		return err
	}
	d, b := r.disks[0], cl.Broker(cl.Size()-1)
	pid, at := b.PID(), time.Now()
	if err := d.fill(); err != nil {
		return err
	}
	err := c.Until(ctx, "the broker ended for want of room", func() bool { return !b.Running() || b.PID() != pid })
	if err == nil {
		c.Struck(f, at, fmt.Sprintf("broker %d, process %d, ended after %.1f s without room", b.ID(), pid, time.Since(at).Seconds()), "broker's disk full")
	}
	if err := errors.Join(err, d.empty()); err != nil {
		return err
	}
	if err := c.Until(ctx, "the broker is back", func() bool { return b.Running() && b.PID() != pid }); err != nil {
		return err
	}
	return r.whole(ctx, cl)
}

func count(file, text string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return strings.Count(string(b), text)
}
