//go:build !linux

package rig

import (
	"context"
	"errors"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
)

type disk struct{}

var errLinuxOnly = errors.New("a disk is filled, and a clock set, on Linux only")

func (r *Rig) clocks(context.Context, *apache.Options) error                { return errLinuxOnly }
func (r *Rig) clockJumps(context.Context, *chaos.Chaos, *chaos.Fault) error { return errLinuxOnly }
func mountDisk(string, int) (*disk, error)                                  { return nil, errLinuxOnly }
func (d *disk) unmount() error                                              { return nil }
func (r *Rig) moveTables(context.Context) error                             { return errLinuxOnly }
func (r *Rig) pgDisk(context.Context, *chaos.Chaos, *chaos.Fault) error     { return errLinuxOnly }
func (r *Rig) brokerDisk(context.Context, *chaos.Chaos, *chaos.Fault) error { return errLinuxOnly }
