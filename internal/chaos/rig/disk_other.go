//go:build !linux

package rig

import (
	"context"
	"errors"

	"github.com/exactly-pipeline/exactly/internal/chaos"
)

type disk struct{}

var errNoDisk = errors.New("a disk can be filled on Linux only")

func mountDisk(string, int) (*disk, error)                                  { return nil, errNoDisk }
func (d *disk) unmount() error                                              { return nil }
func (r *Rig) moveTables(context.Context) error                             { return errNoDisk }
func (r *Rig) pgDisk(context.Context, *chaos.Chaos, *chaos.Fault) error     { return errNoDisk }
func (r *Rig) brokerDisk(context.Context, *chaos.Chaos, *chaos.Fault) error { return errNoDisk }
