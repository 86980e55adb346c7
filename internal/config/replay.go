package config

// Replay is the settings of the second source that workers read: the pointers of `exactly dlq replay`, under a group of their own. Any command can be
// pointed at it by EXACTLY_TOPICS_INPUT and EXACTLY_GROUP.
func (c *Config) Replay() Config {
	r := *c
	r.Group, r.Topics.Input, r.Start, r.AutoHeal = c.Group+"-replay", c.Topics.Replay, "earliest", false
	return r
}
