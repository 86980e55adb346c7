package doctor

import "fmt"

var registryRules = []rule{
	{
		name: "registry-subjects", severity: Error, needs: []Part{Registry},
		why: "Producers and readers find each other by these subjects, and a worker registers its output's at its start, which it may not be allowed to.",
		check: func(p *probe) {
			for _, s := range p.subjectNames() {
				if is := p.Subjects[s]; is != nil && len(is.Versions) == 0 {
					p.found(s, "exactly setup", "nothing is registered under it")
				}
			}
		},
	},
	{
		name: "registry-schema", severity: Error, needs: []Part{Registry},
		why: "A worker registers the schema of what it publishes at its start, and waits if that is refused; setup fails likewise.",
		check: func(p *probe) {
			for _, s := range p.subjectNames() {
				if is := p.Subjects[s]; is != nil && is.Refused != "" {
					p.found(s, "register the program's schema there by hand, or give it topics of its own", "the registry would refuse our schema: %s", is.Refused)
				}
			}
		},
	},
	{
		name: "registry-readable", severity: Error, needs: []Part{Registry},
		why: "Every click written with such a schema becomes a dead letter.",
		check: func(p *probe) {
			name := p.Settings.Topics.Input + "-value"
			if is := p.Subjects[name]; is != nil {
				for _, v := range is.Versions {
					if v.Unreadable != "" {
						p.found(fmt.Sprintf("%s version %d", name, v.Version), "have its producers use another version; delete it where nothing was written with it", "schema id %d: %s", v.ID, v.Unreadable)
					}
				}
			}
		},
	},
	{
		name: "registry-compatibility", severity: Development, needs: []Part{Registry},
		why: "Anybody may register a schema that no worker can read, and every click written with it becomes a dead letter.",
		check: func(p *probe) {
			for _, s := range p.subjectNames() {
				if is := p.Subjects[s]; is != nil && is.Level == "" {
					p.miss("compatibility level", s)
				} else if is != nil && is.Level == "NONE" {
					p.found(s, "set it to BACKWARD (PUT /config/"+s+" of the registry)", "its compatibility level is NONE")
				}
			}
		},
	},
}

func (p *probe) subjectNames() []string {
	return []string{p.Settings.Topics.Input + "-value", p.Settings.Topics.Output + "-value"}
}
