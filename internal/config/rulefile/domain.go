package rulefile

import (
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/distlimiter/ratelimit/internal/config"
	"github.com/distlimiter/ratelimit/internal/config/yamlfile"
)

// decoder reads a document of a source, or a part of one.
type decoder struct {
	reader
	replaced []reference // their domain is not set yet
	consume  field[string]
	adjust   []*config.Adjustment
	adjustAt config.Pos // of the adjustments; zero in a document that has a domain

	// elsewhere is an empty list of descriptors in place of those that are in other
	// parts, which are read already. Nil: none.
	elsewhere *yaml.Node
	read      []*config.Descriptor
}

var rootKeys = newKeys(true, "domain", descriptors, "consume", limits, adjust)

func (d *decoder) problemAt(pos config.Pos, what, remedy string) {
	d.problems = append(d.problems, config.Problem{Pos: pos, What: what, Remedy: remedy})
}

// root reads a document. It returns nil for one of adjustments, which has no domain.
func (d *decoder) root(n *yaml.Node) *config.Domain {
	if at := adjustIn(n); at != nil {
		d.adjustments(n, at)
		return nil
	}
	domain := &config.Domain{Pos: d.pos(n)}
	var name field[string]
	d.mapping(n, rootKeys, func(key string, value *yaml.Node) {
		switch key {
		case "domain":
			d.text(value, &name)
		case "consume":
			d.text(value, &d.consume)
		case descriptors:
			if domain.Descriptors = d.read; value != d.elsewhere {
				domain.Descriptors = d.descriptors(value)
			}
		case limits:
			domain.Limits = d.sets(value)
		case adjust:
			d.problem(value, "adjust by a merge key", "write it out, in a document of its own")
		}
	})
	domain.Name, domain.ConsumeGiven = name.v, d.consume.present()
	switch {
	case name.v != "":
		domain.Pos = d.pos(name.n)
	case name.bad || yamlfile.Resolve(n).Kind != yaml.MappingNode: // reported already
	default:
		d.problemIn("domain", name.at(n), "the domain is missing or empty", `write "domain: name", as in Envoy's rate limit filter`)
	}
	switch d.consume.v {
	case "", "each":
	case "all_or_nothing":
		domain.Consume = config.AllOrNothing
	default:
		d.problemIn("consume", d.consume.n, fmt.Sprintf("unknown value %q", yamlfile.Abridge(d.consume.v)), "write each or all_or_nothing")
	}
	if domain.Descriptors == nil && domain.Limits == nil && yamlfile.Resolve(n).Kind == yaml.MappingNode {
		d.warnIn("descriptors", n, "the domain has no descriptors: nothing is limited", "write some")
	}
	return domain
}

// descriptors is the key of a list of descriptors, in a domain or in a descriptor. limits
// is the key of a domain's rules on sets of entries.
const (
	descriptors = "descriptors"
	limits      = "limits"
)
