package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
)

// Where a setting comes from, beside "file PATH" and the name of an environment variable.
const (
	OfDefault = "default"
	OfFlag    = "--set"
)

// Origins says of every setting where its value comes from: OfDefault, "file PATH", its environment variable, or OfFlag. A default of 0 may have been
// derived from another setting, as configs/exactly.yaml says of each.
func Origins(path string, environ []string, flags map[string]string) (map[string]string, error) {
	_, origins, err := gather(path, environ, flags)
	return origins, err
}

// gather lays the places that settings may stand in over each other, and notes which one each came from.
func gather(path string, environ []string, flags map[string]string) (*koanf.Koanf, map[string]string, error) {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(Defaults(), "koanf"), nil); err != nil {
		return nil, nil, fmt.Errorf("load defaults: %w", err)
	}
	names, origins := Names(), map[string]string{}
	for _, n := range names {
		origins[n] = OfDefault
	}
	if path != "" {
		f := koanf.New(".")
		if err := f.Load(file.Provider(path), yaml.Parser()); err != nil {
			return nil, nil, fmt.Errorf("read settings file %s: %w", path, err)
		}
		for _, key := range f.Keys() {
			if !slices.Contains(names, key) {
				return nil, nil, fmt.Errorf("settings file %s: unknown setting %q; known are %s", path, key, strings.Join(names, ", "))
			}
			origins[key] = "file " + path
		}
		if err := k.Merge(f); err != nil {
			return nil, nil, fmt.Errorf("settings file %s: %w", path, err)
		}
	}
	over := map[string]any{}
	for _, n := range names {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, EnvName(n)+"="); ok {
				over[n], origins[n] = v, EnvName(n)
			}
		}
		if v, ok := flags[n]; ok {
			over[n], origins[n] = v, OfFlag
		}
	}
	return k, origins, k.Load(confmap.Provider(over, "."), nil)
}
